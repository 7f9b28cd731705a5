"""The SuperLink's Control API, on loopback: nodes and runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from gliofed.shared.terminal import UserError


class ControlError(UserError):
    """The SuperLink is not there, or refuses."""


class SilentError(ControlError):
    """It does not answer at all."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A site as Flower knows it."""

    id: int
    public_key: bytes
    """As `key_bytes` writes it."""
    online: bool
    ended: str
    """When it went away last; ISO 8601, empty if it never did."""


@dataclass(frozen=True)
class Control:
    """A SuperLink at `address` whose certificate `ca` signed."""

    address: str
    ca: Path

    def nodes(self) -> list[Node]:
        """Every node that is registered."""
        with self._client() as client:
            found = client.ListNodes(ListNodesRequest()).nodes_info
        return [
            Node(
                id=node.node_id,
                public_key=node.public_key,
                online=node.status == "online",
                ended=node.last_deactivated_at,
            )
            for node in found
            if not node.unregistered_at
        ]

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
        fab = Fab(hash_str=sha256(code).hexdigest(), content=code)
        request = StartRunRequest(fab=fab, override_config=user_config_to_proto(dict(config)))
        with self._client() as client:
            run = int(client.StartRun(request).run_id)
        if not run:  # Flower's answer to code that it does not take
            raise ControlError("the SuperLink does not take the code; its log says why")
        return run

    def unfinished(self) -> dict[int, str]:
        """Flower's word for each run that has not finished: pending, starting or running."""
        with self._client() as client:
            found = client.ListRuns(ListRunsRequest()).run_dict  # the newest 20: only one runs at a time
        return {run: found[run].status.status for run in found if found[run].status.status != "finished"}

    def stop_run(self, run: int) -> None:
        """End it."""
        with self._client() as client:
            client.StopRun(StopRunRequest(run_id=run))

    @contextmanager
    def _client(self) -> Iterator[ControlHttpClient]:
        """Open a connection; whatever goes wrong on it is a ControlError."""
        version = RuntimeVersionHttpInterceptor(component_name="gliofed")
        client = ControlHttpClient.from_server_address(self.address, False, self.ca.read_bytes(), [version])
        try:
            yield client
        except httpx.TransportError as error:
            # A timeout that is Python's own has no words.
            raise SilentError(f"the SuperLink at {self.address}: {error or type(error).__name__}") from None
        except (httpx.HTTPError, FlowerError, ValueError) as error:
            raise ControlError(f"the SuperLink at {self.address}: {error}") from None
        finally:
            client.close()


key_bytes = public_key_to_bytes
"""Writes a public key as Flower does."""
