"""SuperLink's interface for operators, in the few words that the service needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab

from edgetrain.errors import ServiceError

__all__ = ["Control", "RunState"]

APP = Path(__file__).parents[1] / "flower_app"
SECONDS = 20.0


@dataclass(frozen=True)
class RunState:
    """A run as SuperLink knows it.

    `status` is pending, starting, running or finished; `outcome` of a finished one is completed,
    failed or stopped, and `details` says why.
    """

    run_id: int
    status: str
    outcome: str
    details: str


class Control:
    """A connection to SuperLink's control API; a context manager.

    Every method raises ServiceError where SuperLink cannot be reached or refuses.
    """

    def __init__(self, port: int, ca: Path) -> None:
        with refused():
            self._client = ControlHttpClient.from_server_address(
                f"127.0.0.1:{port}",
                insecure=False,
                root_certificates=ca.read_bytes(),
                interceptors=[],
            )

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def nodes(self) -> list[NodeInfo]:
        """Return all nodes that are enrolled, or were."""
        with refused():
            return list(self._client.ListNodes(ListNodesRequest()).nodes_info)

    def register(self, name: str, public_key: bytes) -> int:
        """Let the owner of a key join as a node of this name; return the node's id."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        with refused():
            return int(self._client.RegisterNode(request).node_id)

    def unregister(self, node_id: int) -> None:
        """Let a node join no more."""
        with refused():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start(self, settings: Mapping[str, str], app: Path = APP) -> int:
        """Start a Flower app, ours unless given, with this run-config; return the run's id."""
        with refused():
            content = build_fab_from_disk(app)
            fab = Fab(sha256(content).hexdigest(), content, {})
            request = StartRunRequest(
                fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(settings))
            )
            return int(self._client.StartRun(request).run_id)

    def stop(self, run_id: int) -> None:
        """Stop a run that is not finished."""
        with refused():
            self._client.StopRun(StopRunRequest(run_id=run_id))

    def run(self, run_id: int) -> RunState | None:
        """Return a run, or None where there is none of this id."""
        with refused():
            found = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict
        if run_id not in found:
            return None
        status = found[run_id].status
        return RunState(run_id, status.status, status.sub_status, status.details)


@contextmanager
def refused() -> Iterator[None]:
    """Raise ServiceError, with the cause in one line, for all that can go wrong on the way."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        reason = " ".join(error.response.text.split())[:200]
        raise ServiceError(f"SuperLink refuses ({error.response.status_code}): {reason}") from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ServiceError(
            f"SuperLink cannot be reached: {error}: is `edgetrain-coordinator up` running?"
        ) from error
