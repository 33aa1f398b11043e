import json
import os

from ..identities import IDS, TRUST_DOMAIN
from ..machine import run
from .contender import CIPHER, GROUP, INBOUND_PORT, OUTBOUND_PORT, SERVER, Contender

CONFIGURATION = """\
workload:
  identity:
    files: {{ certificate: {certificate}, privateKey: {private_key} }}
  trustBundles:
    - {{ trustDomain: {trust_domain}, pem: {bundle} }}
{direction}
workers: 1
admin: {{ socket: {socket} }}
{extra}
"""
DIRECTIONS = {
    "client": f"""\
outbound:
  mode: strict
  peers:
    - {{ address: {SERVER}/32, identity: "{IDS['server']}" }}""",
    "server": """\
inbound:
  mode: strict""",
}


class Culvert(Contender):
    name = "culvert"

    def __init__(self, setup, name=name, programs=None, yaml=""):
        """`programs` and `yaml` (appended to both configurations) make variants of it."""
        super().__init__(setup)
        self.name = name
        self._programs = programs or setup.programs
        self._yaml = yaml
        self._sockets = {}

    def _program(self, name):
        return os.path.join(self._programs, name)

    def start_side(self, topology, side, stranger):
        credential = self.setup.identities.get(side, stranger)
        self._sockets[side] = os.path.join(topology.directory, f"culvert-{side}.sock")
        configuration = topology.write(f"culvert-{side}.yaml", CONFIGURATION.format(
            certificate=credential.certificate, private_key=credential.private_key,
            bundle=credential.bundle, trust_domain=TRUST_DOMAIN, direction=DIRECTIONS[side],
            socket=self._sockets[side], extra=self._yaml))
        proxy = topology.start(
            side, f"culvert-proxy-{side}", self._program("culvert-proxy"), "--config",
            configuration)
        for port in (OUTBOUND_PORT, INBOUND_PORT):
            proxy.wait_for_listener(port)
        return proxy

    def intercept(self, topology, side):
        run(self._program("culvert-init"), "install", "--netns", topology.namespace(side),
            "--config", os.path.join(topology.directory, f"culvert-{side}.yaml"))

    def own_count(self):
        return {
            side: json.loads(run(
                self._program("culvert"), "status", "--json", "--admin-socket", socket)
            )["connections"]["total"]["mutual_tls"]
            for side, socket in self._sockets.items()}

    def given(self):
        return {
            "program": run(self._program("culvert-proxy"), "--version").strip(),
            "workers": "1 worker, 1 control thread",
            "interception": "culvert-init install: redirect, guard chain; SO_ORIGINAL_DST",
            "tls": f"TLS 1.3, {CIPHER}, {GROUP}, P-256 certificates of `culvert ca`",
            "verification": "client: chain, SPIFFE rules, the server's ID exactly; "
                            "server: chain, SPIFFE rules, trust domain",
            "resumption": "TLS 1.3 tickets, one session kept for each address by the client",
            "modes": "strict on both sides; the ClientHello is sniffed",
            "log": "a line per connection, to a file",
            "added_configuration": self._yaml or "none",
        }
