"""The link as a hospital, and as anybody else, reaches it: a real SuperLink behind a real nginx."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import flwr.supercore.control.control_http_client as control
import flwr.supercore.runtime.runtime_http_client as runtime
import flwr.supernode.fleet_http_client as fleet
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import PrivateFormat, load_ssh_private_key
from deployed_federation import SITES, Deployed
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from waiting import alive, until

from gliofed.server.link.control import key_bytes
from gliofed.server.link.proxy import ACCESS_LOG, CALLS, logged_key
from gliofed.server.provisioning.admit import expel
from gliofed.shared.keys import new_key, private_bytes, read_public, write_secret

pytestmark = pytest.mark.deploy

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
SOURCES = "".join(Path(each.__file__).read_text() for each in (control, runtime, fleet))
OTHERS = ["/v1/fleet/register-node", "/v1/fleet/unregister-node", "/", "/docs", "/openapi.json", "/health"]
PATHS = sorted({*re.findall(r'"(/v1/[\w-]+/[\w-]+)"', SOURCES), *OTHERS})
"""Every path of Flower's clients."""
ALLOWED = [f"/v1/fleet/{call}" for call in CALLS]


@pytest.fixture
def line(deployed: Deployed) -> Iterator[http.client.HTTPSConnection]:
    """A connection as a hospital makes it."""
    trust = ssl.create_default_context(cafile=str(deployed.hospital(SITES[0]) / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", deployed.port, context=trust, timeout=30)
    yield connection
    connection.close()


def answer(line: http.client.HTTPSConnection, method: str, path: str, body: bytes = b"") -> int:
    """The status of an answer; nginx closes a connection now and then."""
    try:
        line.request(method, path, body or None)
        reply = line.getresponse()
    except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
        line.close()
        line.request(method, path, body or None)
        reply = line.getresponse()
    reply.read()
    return reply.status


def test_what_a_hospital_does_not_need_is_not_there(line: http.client.HTTPSConnection) -> None:
    """Flower's Control API has no authentication: whoever reaches it runs code at every hospital."""
    forbidden = [path for path in PATHS if path not in ALLOWED]
    assert len([path for path in forbidden if path.startswith("/v1/control/")]) > 20
    assert len([path for path in forbidden if path.startswith("/v1/runtime/")]) > 5
    there = [(m, p) for p in forbidden for m in METHODS if answer(line, m, p) != 404]
    assert not there


def test_what_a_hospital_needs_is_there_by_post_alone(line: http.client.HTTPSConnection) -> None:
    assert not [(m, p) for p in ALLOWED for m in METHODS if m != "POST" and answer(line, m, p) != 404]
    # Without a signature Flower refuses each, but it is Flower that does.
    assert {answer(line, "POST", path, b"x") for path in ALLOWED}.isdisjoint({404, 502, 503, 504})


def test_only_a_chunk_of_an_update_may_be_large(line: http.client.HTTPSConnection) -> None:
    """A list of thousands of made-up chunks, half a megabyte, locked the SuperLink's database for everybody."""
    push = "/v1/fleet/push-object"
    assert {answer(line, "POST", path, bytes(33 * 2**10)) for path in ALLOWED if path != push} == {413}
    assert answer(line, "POST", push, bytes(17 * 2**20)) == 413
    # Without a signature Flower refuses it, but it is Flower that does.
    assert answer(line, "POST", push, bytes(6 * 2**20)) == answer(line, "POST", push, b"x") < 500


def test_a_site_sends_one_list_of_chunks_at_a_time(deployed: Deployed, line: http.client.HTTPSConnection) -> None:
    """Several at once kept every other writer from the SuperLink's database."""
    path = "/v1/fleet/push-messages"
    assert answer(line, "POST", path, b"x") < 500
    trust = ssl.create_default_context(cafile=str(deployed.hospital(SITES[0]) / "ca.crt"))
    with socket.create_connection(("127.0.0.1", deployed.port), 30) as plain:
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as other:
            other.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode())
            until(lambda: answer(line, "POST", path, b"x") == 503, "the second is told to come again")
    until(lambda: answer(line, "POST", path, b"x") < 500, "the first is gone")


@pytest.mark.parametrize(
    "path",
    [
        "//v1/control/list-nodes",
        "/v1//control/list-nodes",
        "/v1/control//list-nodes",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/pull-messages/../../control/list-nodes",
        "/v1/fleet/pull-messages/%2e%2e/%2e%2e/control/list-nodes",
        "/v1/fleet/pull-messages%2f..%2f..%2fcontrol%2flist-nodes",
        "/v1%2fcontrol%2flist-nodes",
        "/v1/%63ontrol/list-nodes",
        "/V1/CONTROL/LIST-NODES",
        "/v1/control/list-nodes/",
        "/v1/control/list-nodes?x=/v1/fleet/pull-messages",
        "/v1/control/list-nodes;/v1/fleet/pull-messages",
        "/v1/control/list-nodes%00/v1/fleet/pull-messages",
        "/v1/fleet/register-node%20",
        "/v1/fleet/pull-messages/register-node",
        "http://localhost/v1/control/list-nodes",
        "https://127.0.0.1/v1/fleet/register-node",
        "/v1/control/x%2f..%2f..%2ffleet%2fpull-messages",
        "/v1/fleet//pull-messages",
        "/v1/fleet/pull%2dmessages",
        "/v1/fleet/pull-messages?x",
    ],
)
def test_no_other_spelling_is_passed_on(deployed: Deployed, path: str) -> None:
    raw = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    trust = ssl.create_default_context(cafile=str(deployed.hospital(SITES[0]) / "ca.crt"))
    with socket.create_connection(("127.0.0.1", deployed.port), 30) as plain:
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as line:
            line.sendall(raw)
            status = int(line.recv(4096).split()[1])
    assert status in (400, 404)


def test_nothing_goes_without_tls(deployed: Deployed) -> None:
    with socket.create_connection(("127.0.0.1", deployed.port), 30) as line:
        line.sendall(b"POST /v1/fleet/activate-node HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert line.recv(4096).split()[1] == b"400"


def test_old_tls_is_refused(deployed: Deployed) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the version that is tried
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", deployed.port), 30) as line, pytest.raises(ssl.SSLError):
        old.wrap_socket(line)


def test_another_authority_is_not_trusted(deployed: Deployed) -> None:
    """Nor is the machine's own list of authorities: a hospital trusts its kit alone."""
    with socket.create_connection(("127.0.0.1", deployed.port), 30) as line:
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(line, server_hostname="127.0.0.1")


def test_the_superlink_itself_listens_on_loopback_alone(deployed: Deployed) -> None:
    port = re.findall(r"server 127\.0\.0\.1:(\d+)", (deployed.folder / "link" / "nginx.conf").read_text())[0]
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [words[1] for words in table if words[3] == "0A"]
    assert [each for each in listening if each.endswith(f":{int(port):04X}")] == [f"0100007F:{int(port):04X}"]


def test_a_second_server_is_refused(deployed: Deployed) -> None:
    second = deployed.command("start", deployed.folder, stderr=subprocess.PIPE)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert b"its server runs already" in said
    assert b"Traceback" not in said


def test_a_node_whose_key_was_not_admitted_is_refused(deployed: Deployed, tmp_path: Path) -> None:
    write_secret(tmp_path / "other.key", private_bytes(new_key(), PrivateFormat.OpenSSH))
    node = deployed.node(SITES[1], tmp_path / "other.key")
    until(lambda: node.poll() is not None, "the node gave up")
    assert node.returncode != 0
    assert not deployed.connected(SITES[1])


def test_an_admitted_site_connects_survives_restarts_and_is_cut_off(deployed: Deployed) -> None:
    """In one test, for a node takes long to start."""
    deployed.node(SITES[0])
    until(lambda: deployed.connected(SITES[0]), "the site connected")
    shown = deployed.status()
    assert shown["programs"] == {"superlink": True, "nginx": True}
    first, second = shown["sites"]
    assert (first["name"], first["membership"], first["connected"]) == (SITES[0], "admitted", True)
    assert (second["name"], second["membership"], second["connected"]) == (SITES[1], "invited", False)

    for program in ("nginx", "superlink"):
        old = deployed.pid(program)
        os.kill(old, signal.SIGKILL)
        until(lambda old=old, program=program: deployed.pid(program) != old, f"{program} was started again")
    until(lambda: deployed.online()["trouble"] is None and deployed.connected(SITES[0]), "the site is back")

    deployed.admit(SITES[1])
    until(lambda: SITES[1] in deployed.online()["sites"], "a site was admitted late")
    deployed.node(SITES[1])
    until(lambda: deployed.connected(SITES[1]), "the late site connected")

    expel(SITES[0], deployed.folder)
    until(lambda: SITES[0] not in deployed.online()["sites"], "the site was shut out")
    log = deployed.hospital(SITES[0]) / "node.log"
    until(lambda: deployed.others[-2].poll() is not None or "401" in log.read_text(), "the node was cut off")
    assert deployed.connected(SITES[1])


def test_every_use_of_a_key_is_logged_with_its_address(deployed: Deployed, line: http.client.HTTPSConnection) -> None:
    """A call without a key as well; but not the polls that bring nothing, and no other path."""
    key = read_public((deployed.hospital(SITES[1]) / "site.key.pub").read_text(), "site.key.pub")
    assert answer(line, "POST", "/v1/fleet/get-run", b"x") == 415  # Flower looks at the form first
    assert answer(line, "POST", "/v1/control/list-nodes") == 404
    log = deployed.folder / "link" / ACCESS_LOG
    until(lambda: " - /v1/fleet/get-run 415 " in log.read_text(), "it is logged")
    calls = [each.split(" ") for each in log.read_text().splitlines()]
    assert {len(each) for each in calls} == {7} and {each[1] for each in calls} == {"127.0.0.1"}
    of_site = {(call, status) for _, _, piece, call, status, _, _ in calls if piece == logged_key(key_bytes(key))}
    assert {("/v1/fleet/activate-node", "200"), ("/v1/fleet/send-node-heartbeat", "200")} <= of_site
    assert "/v1/fleet/pull-messages" not in {each[3] for each in calls if each[4] == "200"}
    assert "/v1/control/list-nodes" not in log.read_text()


def test_a_hospital_orders_no_other(deployed: Deployed) -> None:
    """With its own key, in the server's name: Flower by itself would hand that to the other one as a request."""
    key = load_ssh_private_key((deployed.hospital(SITES[1]) / "site.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = NodeAuthHttpInterceptor(key, key.public_key())
    trust = (deployed.hospital(SITES[1]) / "ca.crt").read_bytes()
    request = PushMessagesRequest(message_object_trees=[ObjectTree()])
    request.node.node_id = deployed.online()["sites"][SITES[1]]["node"]
    request.messages_list.add().metadata.src_node_id = SUPERLINK_NODE_ID
    client = FleetHttpClient.from_server_address(f"127.0.0.1:{deployed.port}", False, trust, [signed])
    with client, pytest.raises(httpx.HTTPStatusError, match="412"):
        client.PushMessages(request)
    log = (deployed.folder / "link" / "superlink.log").read_text()
    assert f"node {request.node.node_id} sent what it may not: a message of another node" in log


def test_a_killed_server_leaves_nothing_that_keeps_the_next_from_starting(deployed: Deployed) -> None:
    assert deployed.server is not None
    left = deployed.pid("superlink"), deployed.pid("nginx")
    deployed.server.kill()
    deployed.server.wait()
    assert all(alive(pid) for pid in left)
    deployed.start()  # which writes what it knows before it starts a program
    for program, old in zip(("superlink", "nginx"), left, strict=True):
        until(lambda old=old, program=program: deployed.pid(program) != old, f"{program} was started anew")
    until(lambda: deployed.connected(SITES[1]), "the site is back")


def test_sigterm_ends_everything(deployed: Deployed) -> None:
    assert deployed.server is not None
    left = deployed.pid("superlink"), deployed.pid("nginx")
    deployed.server.send_signal(signal.SIGTERM)
    assert deployed.server.wait(120) == 0
    assert not [pid for pid in left if alive(pid)]
    assert not deployed.status()["started"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", deployed.port), 5)


def test_a_key_that_flower_refuses_keeps_nobody_else_out_and_comes_back_with_a_new_database(deployed: Deployed) -> None:
    """Flower never takes a key again that it has shut out; the cure that `start` tells must be one."""
    record = deployed.folder / "sites" / SITES[0] / "site.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"expelled": None}))  # expelled by mistake
    deployed.start()
    assert deployed.server is not None
    until(deployed.listens, "the federation can be reached")
    until(lambda: "remove link/state.db" in (deployed.online().get("trouble") or ""), "the cure was told")
    assert list(deployed.online()["sites"]) == [SITES[1]]
    deployed.server.send_signal(signal.SIGTERM)
    deployed.server.wait(120)
    (deployed.folder / "link" / "state.db").unlink()
    deployed.start()
    until(lambda: list(deployed.online().get("sites", {})) == list(SITES), "both may connect")
    assert deployed.online()["trouble"] is None
