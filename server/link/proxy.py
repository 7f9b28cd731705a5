"""nginx in front of the SuperLink: TLS for hospitals, and of Flower's calls only those that a hospital needs.

Flower's Control API has no authentication, and its Fleet API can register nodes: from outside they must not be there.
"""

import base64
from collections.abc import Sequence

CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
"""Of Flower's Fleet API, what a SuperNode uses."""

BURST = 200
"""Calls that a site may make at once before the rate counts."""
ACCESS_LOG = "access.log"
KEY = slice(80, 112)
"""What the access log has of the header in which Flower sends a hospital's public key, PEM in base64: 18 bytes of the
key itself. Before them every key on the curve has the same."""

TEMPLATE = """# Written by gliofed-server start; changes are lost.
daemon off;
worker_processes auto;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    map $status $odd {{ ~^2 0; default 1; }}
    access_log /dev/stderr combined if=$odd;
    map $http_flwr_public_key $key {{ "~^.{{{skipped}}}(?<piece>[A-Za-z0-9+/]{{{length}}})" $piece; default -; }}
    # Not the polls of every site that bring nothing: one in three seconds.
    map "$request_uri $status $body_bytes_sent" $call {{
        "/v1/fleet/pull-messages 200 0" 0;
        ~^/v1/fleet/ 1;
        default 0;
    }}
    log_format call '$time_iso8601 $remote_addr $key $request_uri $status $request_length $bytes_sent';
    access_log {access_log} call if=$call;
    server_tokens off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path unused;
    uwsgi_temp_path unused;
    scgi_temp_path unused;
    limit_req_zone $binary_remote_addr zone=calls:10m rate=20r/s;
    limit_conn_zone $binary_remote_addr zone=connections:10m;
    limit_conn_zone $binary_remote_addr zone=lists:10m;
    limit_req_log_level warn;  # of refusals; delays are usual where a site fetches a model
    limit_req_status 503;  # a SuperNode tries again after a 503, and goes offline for ever after a 429
    limit_conn_status 503;
    upstream superlink {{
        server {link} max_fails=0;
        keepalive 16;
    }}
    server {{
        {listen}
        ssl_certificate ../server/server.crt;
        ssl_certificate_key ../server/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;
        # A list of an update's chunks has 70 bytes for each, and all else is smaller.
        client_max_body_size 32k;
        client_body_buffer_size 32k;  # as large, so that no body lies in a file
        client_header_timeout 30s;
        client_body_timeout 60s;
        error_page 403 =404 /;
        limit_req zone=calls burst={burst};
        limit_conn connections 64;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate ../ca/ca.crt;
        proxy_ssl_name localhost;
        proxy_connect_timeout 5s;
        proxy_read_timeout 120s;
        proxy_max_temp_file_size 0;  # else model data would lie in nginx' files
        location / {{ return 404; }}
        if ($request_uri != $uri) {{ return 404; }}  # another spelling of a path, or a query
{locations}
    }}
}}
"""
LOCATION = """        location = {path} {{
{settings}            limit_except POST {{ deny all; }}
            proxy_pass https://superlink{path};
        }}"""
"""Of one call: nginx asks the SuperLink for this very path, whatever the spelling that came."""
SETTINGS = {
    "push-messages": """\
            # For each list the SuperLink's database is locked, a third of a second for 32k, and who else writes waits
            # five seconds at most: several long ones at once would end every call.
            limit_conn lists 1;
            limit_conn connections 64;
""",
    "push-object": """\
            client_max_body_size 16m;  # Flower sends chunks of 5.24 MB
            client_body_buffer_size 16m;
""",
}


def nginx_conf(listen: Sequence[str], link: str) -> str:
    """The configuration of an nginx; each of `listen`, and `link`, is address:port.

    It names every file from where it stands itself: the folder `link` of a federation's folder.
    """
    return TEMPLATE.format(
        listen=" ".join(f"listen {address} ssl;" for address in listen),
        link=link,
        locations="\n".join(
            LOCATION.format(path=f"/v1/fleet/{call}", settings=SETTINGS.get(call, "")) for call in CALLS
        ),
        access_log=ACCESS_LOG,
        skipped=KEY.start,
        length=KEY.stop - KEY.start,
        burst=BURST,
    )


def logged_key(public_key: bytes) -> str:
    """What the access log has of a key, which Flower writes as these bytes."""
    return base64.b64encode(public_key).decode()[KEY]
