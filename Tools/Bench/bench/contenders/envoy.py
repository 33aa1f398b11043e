import re

from ..identities import IDS, TRUST_DOMAIN
from ..machine import run
from .contender import CIPHER, GROUP, INBOUND_PORT, OUTBOUND_PORT, Contender, redirect_rules

ADMIN_PORT = 15000
MARK = 1337
SO_MARK = 36
TYPES = "type.googleapis.com/envoy.extensions"

CONFIGURATION = """\
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {admin} }} }} }}
static_resources:
  listeners:
  - name: bench
    address: {{ socket_address: {{ address: {address}, port_value: {port} }} }}
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config:
        "@type": {types}.filters.listener.original_dst.v3.OriginalDst
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": {types}.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: original
{downstream}
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [ {{ max_connections: 1000000, max_pending_requests: 1000000 }} ]
    upstream_bind_config:
      socket_options:
      - {{ level: 1, name: {so_mark}, int_value: {mark}, state: STATE_PREBIND }}
{upstream}
"""
COMMON = """\
{indent}common_tls_context:
{indent}  tls_params:
{indent}    tls_minimum_protocol_version: TLSv1_3
{indent}    tls_maximum_protocol_version: TLSv1_3
{indent}    ecdh_curves: [{group}]
{indent}  tls_certificates:
{indent}  - certificate_chain: {{ filename: "{certificate}" }}
{indent}    private_key: {{ filename: "{private_key}" }}
{indent}  validation_context:
{indent}    trusted_ca: {{ filename: "{bundle}" }}
{indent}    match_typed_subject_alt_names:
{indent}    - {{ san_type: URI, matcher: {{ {matcher} }} }}
"""
UPSTREAM = """\
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": {types}.transport_sockets.tls.v3.UpstreamTlsContext
"""
DOWNSTREAM = """\
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": {types}.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
"""
UPSTREAM_WITHOUT_SESSIONS = """\
        max_session_keys: 0
"""
DOWNSTREAM_WITHOUT_SESSIONS = """\
          disable_stateless_session_resumption: true
          disable_stateful_session_resumption: true
"""


class Envoy(Contender):
    name = "envoy"
    resumes = True

    def start_side(self, topology, side, stranger):
        credential = self.setup.identities.get(side, stranger)
        is_client = side == "client"
        matcher = (
            f'exact: "{IDS["server"]}"' if is_client else f'prefix: "spiffe://{TRUST_DOMAIN}/"')
        tls = UPSTREAM if is_client else DOWNSTREAM
        if not self.resumes:
            tls += UPSTREAM_WITHOUT_SESSIONS if is_client else DOWNSTREAM_WITHOUT_SESSIONS
        tls = tls.format(types=TYPES) + COMMON.format(
            indent=" " * (8 if is_client else 10), group=GROUP, certificate=credential.certificate,
            private_key=credential.private_key, bundle=credential.bundle, matcher=matcher)
        port = OUTBOUND_PORT if is_client else INBOUND_PORT
        configuration = topology.write(f"envoy-{side}.yaml", CONFIGURATION.format(
            admin=ADMIN_PORT, address="127.0.0.1" if is_client else "0.0.0.0", port=port,
            types=TYPES, so_mark=SO_MARK, mark=MARK, downstream="" if is_client else tls,
            upstream=tls if is_client else ""))
        proxy = topology.start(
            side, f"envoy-{side}", self.setup.envoy, "--config-path", configuration,
            "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
        proxy.wait_for_listener(port)
        self._topology = topology
        return proxy

    def intercept(self, topology, side):
        topology.load_rules(side, redirect_rules(side, f"meta mark {MARK}"))

    def own_count(self):
        return {side: self._handshakes(side) for side in self.proxies}

    def _handshakes(self, side):
        text = self._topology.run(
            side, "curl", "--silent", "--fail",
            f"http://127.0.0.1:{ADMIN_PORT}/stats?filter=ssl.handshake")
        return sum(int(count) for count in re.findall(r"ssl\.handshake: (\d+)", text))

    def given(self):
        version = re.search(r"version: (.*)", run(self.setup.envoy, "--version")).group(1)
        return {
            "program": f"Envoy {version}",
            "workers": "--concurrency 1, beside its main thread",
            "interception": "nftables redirect without a guard; original_dst listener filter and "
                            "cluster; no tls_inspector, so it does not sniff",
            "tls": f"TLS 1.3, {CIPHER} (BoringSSL's choice), {GROUP}, P-256 certificates of "
                   "`culvert ca`",
            "verification": "client: chain, the server's URI SAN exactly; "
                            "server: chain, URI SAN by the trust domain",
            "resumption": "Envoy's defaults: TLS 1.3 tickets, one session kept by the client"
                          if self.resumes else "off on both sides",
            "log": "none",
        }


class EnvoyFull(Envoy):
    """Without resumption: what its new connections cost as full handshakes."""
    name = "envoy-full"
    resumes = False
    groups = ("connections",)
