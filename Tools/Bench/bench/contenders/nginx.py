import re
import subprocess

from ..identities import DNS_NAMES
from ..machine import descriptor_limit
from .contender import (
    BULK_PORT, CIPHER, GROUP, HTTP_PORT, NOBODY, SERVER, Contender, redirect_rules)

# Listener ports, by the port of the application.
PORTS = {HTTP_PORT: 15080, BULK_PORT: 15201}

CONFIGURATION = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user nobody nogroup;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {directory}/stream-{side}.pid;
error_log stderr error;
events {{ worker_connections {descriptors}; }}
stream {{
  tcp_nodelay on;
  proxy_timeout 1h;
{tls}
{servers}
}}
"""
CLIENT = """\
  proxy_ssl on;
  proxy_ssl_protocols TLSv1.3;
  proxy_ssl_conf_command Ciphersuites {cipher};
  proxy_ssl_conf_command Groups {group};
  proxy_ssl_certificate {certificate};
  proxy_ssl_certificate_key {private_key};
  proxy_ssl_trusted_certificate {bundle};
  proxy_ssl_verify on;
  proxy_ssl_name {server_name};
  proxy_ssl_session_reuse off;
"""
SERVER_TLS = """\
  ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites {cipher};
  ssl_ecdh_curve {group};
  ssl_certificate {certificate};
  ssl_certificate_key {private_key};
  ssl_client_certificate {bundle};
  ssl_verify_client on;
  ssl_session_tickets off;
  ssl_session_cache off;
"""


class Nginx(Contender):
    name = "nginx"

    def start_side(self, topology, side, stranger):
        credential = self.setup.identities.get(side, stranger, with_dns_name=True)
        is_client = side == "client"
        tls = (CLIENT if is_client else SERVER_TLS).format(
            cipher=CIPHER, group=GROUP, certificate=credential.certificate,
            private_key=credential.private_key, bundle=credential.bundle,
            server_name=DNS_NAMES["server"])
        servers = "\n".join(
            f"  server {{ listen {'127.0.0.1:' if is_client else ''}{listener}"
            f"{'' if is_client else ' ssl'} backlog=4096; proxy_pass {SERVER}:{port}; }}"
            for port, listener in PORTS.items())
        configuration = topology.write(f"stream-{side}.conf", CONFIGURATION.format(
            descriptors=descriptor_limit(), directory=topology.directory, side=side, tls=tls,
            servers=servers))
        proxy = topology.start(
            side, f"nginx-stream-{side}", "nginx", "-c", configuration, "-p", topology.directory,
            "-e", "stderr")
        for listener in PORTS.values():
            proxy.wait_for_listener(listener)
        return proxy

    def intercept(self, topology, side):
        topology.load_rules(side, redirect_rules(side, f"meta skuid {NOBODY}", PORTS))

    def given(self):
        version = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
        return {
            "program": re.search(r"nginx version: (.*)", version).group(1) + ", stream module",
            "workers": "worker_processes 1, beside its master (both are counted)",
            "interception": "nftables redirect by port without a guard, fixed addresses: it cannot "
                            "ask for the original destination of a redirected connection",
            "tls": f"TLS 1.3, {CIPHER}, {GROUP}, P-256 certificates of the same CA with a DNS name "
                   "beside the SPIFFE ID",
            "verification": "client: chain, the server's DNS name; server: chain only. It cannot "
                            "compare a URI SAN",
            "resumption": "off on both sides",
            "log": "none",
        }
