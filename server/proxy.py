"""nginx in front of the SuperLink: TLS for hospitals, and of Flower's calls only those that a hospital needs.

Flower's Control API has no authentication, and its Fleet API can register nodes: from outside they must not be there.
"""

from pathlib import Path

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
"""Of Flower 1.41's Fleet API, what a SuperNode uses."""

TEMPLATE = """# Written by gliofed-server start; changes are lost.
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log combined;
    server_tokens off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    limit_req_zone $binary_remote_addr zone=calls:10m rate={rate}r/s;
    limit_conn_zone $binary_remote_addr zone=connections:10m;
    limit_req_status 503;  # a SuperNode tries again after a 503, and goes offline for ever after a 429
    limit_conn_status 503;
    upstream superlink {{
        server {link} max_fails=0;
        keepalive 16;
    }}
    server {{
        listen {listen} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;
        client_max_body_size 16m;  # Flower sends chunks of 5.24 MB
        client_body_buffer_size 8m;
        client_header_timeout 30s;
        client_body_timeout 60s;
        location / {{ return 404; }}
        location ~ ^/v1/fleet/({calls})$ {{
            limit_except POST {{ deny all; }}
            error_page 403 =404 /;
            limit_req zone=calls burst=200;
            limit_conn connections 64;
            proxy_pass https://superlink;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {ca};
            proxy_ssl_name localhost;
            proxy_connect_timeout 5s;
            proxy_read_timeout 120s;
            proxy_max_temp_file_size 0;  # else model data would lie in nginx' files
        }}
    }}
}}
"""


def nginx_conf(
    folder: Path, listen: str, link: str, certificate: Path, key: Path, ca: Path, requests_a_second: int = 20
) -> str:
    """The configuration of an nginx that keeps its files in `folder`; `listen` and `link` are address:port."""
    return TEMPLATE.format(
        folder=folder,
        listen=listen,
        link=link,
        certificate=certificate,
        key=key,
        ca=ca,
        calls="|".join(CALLS),
        rate=requests_a_second,
    )
