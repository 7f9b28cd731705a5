"""From outside, of Flower's calls only those that a hospital needs; tests/deploy try the rest on a real nginx."""

import re
from pathlib import Path

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.supernode import fleet_http_client

from server.link.proxy import CALLS, nginx_conf

CONF = nginx_conf(["0.0.0.0:8443", "[::]:8443"], "127.0.0.1:9000")


def test_the_allowed_paths_are_whole_paths() -> None:
    (pattern,) = re.findall(r"location ~ (\^.*) \{", CONF)
    allowed = [f"/v1/fleet/{call}" for call in CALLS]
    assert all(re.search(pattern, path) for path in allowed)
    tricks = [f"{path}/x" for path in allowed] + [f"/x{path}" for path in allowed] + [path[:-1] for path in allowed]
    others = ["/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/control/start-run", "/v1/runtime/get-nodes"]
    assert not [path for path in [*tricks, *others] if re.search(pattern, path)]


def test_the_allowed_calls_are_those_of_flowers_node() -> None:
    """A new version of Flower may rename one, and then sites would be refused; registering is the operator's."""
    source = Path(fleet_http_client.__file__).read_text()
    calls = set(re.findall(r'"/v1/fleet/([\w-]+)"', source))
    assert calls - {"register-node", "unregister-node"} == set(CALLS)


def test_a_list_of_an_updates_chunks_fits_and_one_chunk() -> None:
    """Of a gigabyte, twice over; no body is put into a file."""
    tree = ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="c" * 64)] * (10**9 // CHUNK))
    calls, push_object = [int(size) for size in re.findall(r"client_max_body_size (\d+)[km];", CONF)]
    assert PushMessagesRequest(message_object_trees=[tree]).ByteSize() < calls * 2**10 / 2
    assert PushObjectRequest(object_content=bytes(CHUNK)).ByteSize() < push_object * 2**20
    assert re.findall(r"client_body_buffer_size (\d+)[km];", CONF) == [str(calls), str(push_object)]


def test_addresses_and_files() -> None:
    """Files are named from the folder `link`, so that a folder's name needs no quotes."""
    assert "listen 0.0.0.0:8443 ssl; listen [::]:8443 ssl;" in CONF
    assert "server 127.0.0.1:9000 max_fails=0;" in CONF
    assert "proxy_ssl_verify on;" in CONF
    assert not re.search(r"[ \"]/(?!dev/stderr|v1|; )[a-z]", CONF)
    assert CONF.count("{") == CONF.count("}")
