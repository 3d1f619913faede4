"""The shape of the code: layers, sizes, names, and one version."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgetrain

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "edgetrain": ROOT / "edgetrain",
    "edgetrain.client": ROOT / "client",
    "edgetrain.coordinator": ROOT / "coordinator",
    "edgetrain.memory_profiler": ROOT / "memory_profiler",
}
MODULES = sorted(
    (package, path) for package, folder in FOLDERS.items() for path in folder.rglob("*.py")
)
# Lowest first: an import may only point down. The commands of `edgetrain` stand on top of it all.
LAYERS = ("edgetrain", "edgetrain.memory_profiler", "edgetrain.client", "edgetrain.coordinator")
ON_TOP = {
    ROOT / "edgetrain" / "cli.py",
    ROOT / "edgetrain" / "train_command.py",
    ROOT / "edgetrain" / "train_report.py",
    *(ROOT / "edgetrain" / "bench").glob("*.py"),
}
LONGEST_MODULE, LONGEST_FUNCTION, LONGEST_NATIVE = 350, 50, 500
"""Lines: the guides are 300, 40 and 500; past these a file is two ideas."""
EXPORTS = {
    "BudgetError",
    "EdgetrainError",
    "FleetConfig",
    "Metrics",
    "Model",
    "Plan",
    "Predictor",
    "SimulationReport",
    "Trainer",
    "__version__",
    "export_onnx",
    "export_packed",
    "from_onnx",
    "from_torch",
    "load",
    "models",
    "plan",
    "simulate",
}
# What a device may load: the standard library and the native module.
HEAVY = (
    *("numpy", "flwr", "torch", "grpc", "rich", "typer", "psutil", "google.protobuf"),
    "cryptography",
)
LEAN_MODULES = (
    "edgetrain",
    "edgetrain.schedule",
    "edgetrain.predictor",
    "edgetrain.train",
    "edgetrain.task",
    "edgetrain.client.worker",
    "edgetrain.client.__main__",
    "edgetrain.client.daemon",
    "edgetrain.client.errand",
    "edgetrain.memory_profiler.signature",
    "edgetrain.memory_profiler.choose",
    "edgetrain.memory_profiler.costs",
    "edgetrain.memory_profiler.inference",
    "edgetrain.memory_profiler.energy.meter",
    "edgetrain.data.store",
)


def imports_of(path: Path) -> set[str]:
    """Return the names of the edgetrain modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.split(".")[0] == "edgetrain"}


def layer_of(module: str) -> int:
    """Return the height of the layer that a module belongs to."""
    return max(
        height for height, layer in enumerate(LAYERS) if f"{module}.".startswith(f"{layer}.")
    )


@pytest.mark.parametrize(("package", "path"), MODULES, ids=lambda item: str(item)[-40:])
def test_imports_point_down(package: str, path: Path) -> None:
    if path in ON_TOP or path == ROOT / "edgetrain" / "__init__.py":
        return
    for imported in imports_of(path):
        assert layer_of(imported) <= layer_of(package), f"{path} imports {imported}"


@pytest.mark.parametrize(("package", "path"), MODULES, ids=lambda item: str(item)[-40:])
def test_a_module_is_one_idea(package: str, path: Path) -> None:
    del package
    source = path.read_text()
    assert len(source.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            # A command's options and a docstring are read, not followed: the statements count.
            first = node.body[min(bool(ast.get_docstring(node)), len(node.body) - 1)]
            assert (node.end_lineno or 0) - first.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize(("package", "path"), MODULES, ids=lambda item: str(item)[-40:])
def test_every_module_says_what_it_is(package: str, path: Path) -> None:
    del package
    assert len(ast.get_docstring(ast.parse(path.read_text())) or "") > 10, "it needs a docstring"


def test_native_files_are_short_and_intrinsics_stand_in_files_named_by_isa() -> None:
    files = list((ROOT / "edgetrain" / "native").rglob("*.?pp"))
    assert len(files) > 10
    for path in files:
        source = path.read_text()
        assert len(source.splitlines()) <= LONGEST_NATIVE, path
        if path.parent.name != "isa":
            assert not re.search(r"\b_mm\d*_|immintrin", source), path


def test_no_file_is_called_after_nothing() -> None:
    vague = {"utils", "helpers", "misc", "manager", "common"}
    assert not [path for _, path in MODULES if path.stem in vague]


def test_the_facade_exports_what_it_promises_and_no_more() -> None:
    assert set(edgetrain.__all__) == EXPORTS
    for name in EXPORTS:
        assert getattr(edgetrain, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgetrain.nothing


@pytest.mark.parametrize("module", LEAN_MODULES)
def test_device_side_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
