"""The SuperLink's Control API, on loopback: nodes and runs. Names of Flower that are not public are used here alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flwr.cli.typing import SuperLinkConnection
from flwr.cli.utils import init_http_client_from_connection
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab


@dataclass(frozen=True)
class Node:
    """A site as Flower knows it."""

    id: int
    name: str
    public_key: bytes
    status: str
    """online, offline or registered."""
    online_until: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Control:
    """A SuperLink at `address` whose certificate `ca` signed."""

    address: str
    ca: Path

    def nodes(self) -> list[Node]:
        """Every node that is registered."""
        with self._client() as client:
            found = client.ListNodes(ListNodesRequest()).nodes_info
        return [Node(n.node_id, n.name, n.public_key, n.status, n.online_until) for n in found if not n.unregistered_at]

    def register(self, public_key: bytes, name: str) -> int:
        """Let a key in; return the node's id."""
        with self._client() as client:
            return int(client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)).node_id)

    def unregister(self, node: int) -> None:
        """Let a key in no more."""
        with self._client() as client:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def start_run(self, code: bytes, config: dict[str, str]) -> int:
        """Start a run of this code; return Flower's id of it."""
        fab = Fab(sha256(code).hexdigest(), code, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(config)))
        with self._client() as client:
            return int(client.StartRun(request).run_id)

    def run_status(self, run: int) -> str:
        """Flower's word for it, such as running or finished:failed."""
        with self._client() as client:
            found = client.ListRuns(ListRunsRequest(run_id=run)).run_dict
        status = found[run].status
        return f"{status.status}:{status.sub_status}".rstrip(":")

    def stop_run(self, run: int) -> None:
        """End it."""
        with self._client() as client:
            client.StopRun(StopRunRequest(run_id=run))

    @contextmanager
    def _client(self) -> Iterator[ControlHttpClient]:
        connection = SuperLinkConnection("gliofed", self.address, str(self.ca), insecure=False)
        client = init_http_client_from_connection(connection)
        try:
            yield client
        finally:
            client.close()
