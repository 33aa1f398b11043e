from ..identities import DNS_NAMES
from ..machine import descriptor_limit, run
from .contender import (
    CIPHER, GROUP, INBOUND_PORT, NOBODY, OUTBOUND_PORT, Contender, redirect_rules)

# It refuses to start unless the limit covers two for each connection and its own.
RESERVED_DESCRIPTORS = 100

CONFIGURATION = """\
global
    nbthread 1
    maxconn {connections}
    uid {nobody}
    gid {nobody}
    tune.ssl.cachesize 0
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen bench
    bind {address}:{port} {downstream}
    server original 0.0.0.0:0 {upstream}
"""


class HAProxy(Contender):
    name = "haproxy"

    def start_side(self, topology, side, stranger):
        credential = self.setup.identities.get(side, stranger, with_dns_name=True)
        tls = (
            f"ssl crt {credential.combined} ca-file {credential.bundle} verify required "
            f"ciphersuites {CIPHER} ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3")
        is_client = side == "client"
        port = OUTBOUND_PORT if is_client else INBOUND_PORT
        configuration = topology.write(f"haproxy-{side}.cfg", CONFIGURATION.format(
            connections=descriptor_limit() // 2 - RESERVED_DESCRIPTORS, nobody=NOBODY,
            address="127.0.0.1" if is_client else "0.0.0.0", port=port,
            downstream="" if is_client else f"{tls} curves {GROUP} no-tls-tickets",
            upstream=f"{tls} verifyhost {DNS_NAMES['server']} no-ssl-reuse" if is_client else ""))
        proxy = topology.start(side, f"haproxy-{side}", "haproxy", "-db", "-f", configuration)
        proxy.wait_for_listener(port)
        return proxy

    def intercept(self, topology, side):
        topology.load_rules(side, redirect_rules(side, f"meta skuid {NOBODY}"))

    def given(self):
        return {
            "program": run("haproxy", "-v").splitlines()[0],
            "workers": "nbthread 1",
            "interception": "nftables redirect without a guard; server 0.0.0.0:0 (SO_ORIGINAL_DST)",
            "tls": f"TLS 1.3, {CIPHER}, {GROUP}, P-256 certificates of the same CA with a DNS name "
                   "beside the SPIFFE ID",
            "verification": "client: chain, the server's DNS name; server: chain only. It cannot "
                            "compare a URI SAN",
            "resumption": "off on both sides",
            "log": "none",
        }
