"""From outside, of Flower's calls only those that a hospital needs; tests/deploy try the rest on a real nginx."""

import re
from pathlib import Path

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.supernode import fleet_http_client
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from gliofed.server.link.control import key_bytes
from gliofed.server.link.proxy import CALLS, logged_key, nginx_conf
from gliofed.shared.keys import new_key

CONF = nginx_conf(["0.0.0.0:8443", "[::]:8443"], "127.0.0.1:9000")


def test_each_allowed_path_is_whole_and_asked_for_as_it_is() -> None:
    """Nginx would pass on the spelling that came if it were not told the path."""
    places = re.findall(r"location (=.+?) \{(.*?)\n        \}", CONF, re.DOTALL)
    assert [place for place, _ in places] == [f"= /v1/fleet/{call}" for call in CALLS]
    for (_, settings), call in zip(places, CALLS, strict=True):
        assert f"proxy_pass https://superlink/v1/fleet/{call};" in settings
        assert "limit_except POST { deny all; }" in settings
    assert CONF.count("proxy_pass ") == len(CALLS)
    assert "location / { return 404; }" in CONF


def test_the_allowed_calls_are_those_of_flowers_node() -> None:
    """A new version of Flower may rename one, and then sites would be refused; registering is the operator's."""
    source = Path(fleet_http_client.__file__).read_text()
    calls = set(re.findall(r'"/v1/fleet/([\w-]+)"', source))
    assert calls - {"register-node", "unregister-node"} == set(CALLS)


def test_a_key_is_logged_by_what_it_has_alone() -> None:
    """The header begins as any other; what is taken of it must differ, and be what nginx takes."""
    (skipped, length) = map(int, re.findall(r'"~\^\.\{(\d+)\}\(\?<piece>\[A-Za-z0-9\+/\]\{(\d+)\}\)"', CONF)[0])
    keys = [new_key() for _ in range(20)]
    logged = [logged_key(key_bytes(key.public_key())) for key in keys]
    assert len({piece[:4] for piece in logged}) > 10
    for key, piece in zip(keys, logged, strict=True):
        sent = NodeAuthHttpInterceptor(key, key.public_key())._public_key_bytes
        assert logged_key(sent) == piece and len(piece) == length and skipped == 80


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
