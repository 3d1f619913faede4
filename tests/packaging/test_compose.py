"""The coordinator in containers: pinned images, mounted files, and figures that are served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from edgetrain.coordinator.__main__ import app
from edgetrain.coordinator.service.keeper import RunRecord
from edgetrain.coordinator.service.metrics import program_metrics, run_metrics
from edgetrain.coordinator.service.status import Progress, progress_fields

DOCKER = Path(__file__).parents[2] / "deploy" / "docker"
YAML_FILES = sorted(DOCKER.rglob("*.y*ml"))
DASHBOARD = json.loads((DOCKER / "grafana" / "federation.json").read_text())
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*")


def loaded(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


SERVICES: dict[str, dict[str, Any]] = loaded("compose.yaml")["services"]


def declared() -> set[str]:
    """Return the names of all series that the service can serve."""
    progress = progress_fields(Progress()) | {"rounds": 1, "accuracy": 0.5}
    run = RunRecord("0001", 7, 1, "running").to_fields() | progress
    families = [*program_metrics({}), *run_metrics(run)]
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_a_file_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_images_are_pinned() -> None:
    files = re.findall(r"^FROM (\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert len(files) >= 2
    assert len(images) >= 2
    for image in (*files, *images):
        assert PINNED.fullmatch(image), image


def test_every_figure_of_the_dashboard_is_served() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bedgetrain_\w+", query)}
    assert asked
    assert asked <= declared()


def test_every_figure_that_is_served_is_on_the_dashboard() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bedgetrain_\w+", query)}
    assert declared() <= asked


def test_what_is_mounted_is_there_and_volumes_are_declared() -> None:
    volumes = loaded("compose.yaml")["volumes"]
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert (DOCKER / source).is_file() if source.startswith(".") else source in volumes


def test_the_coordinators_command_is_one() -> None:
    words = SERVICES["coordinator"]["command"]
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    command = group.commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        metrics = context.params["metrics"]
    scraped = loaded("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scraped == [f"127.0.0.1:{metrics}"]


def test_only_prometheus_shares_the_coordinators_loopback() -> None:
    sharing = [name for name, service in SERVICES.items() if "network_mode" in service]
    assert sharing == ["prometheus"]
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or name == "coordinator"
