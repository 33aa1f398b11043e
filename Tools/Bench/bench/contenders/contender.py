"""What every contender is given, and what each must tell about itself."""
import contextlib
from dataclasses import dataclass, field

from ..identities import Identities
from ..machine import BenchError
from ..topology import ADDRESSES, SIDES

OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
HTTP_PORT = 8080
BULK_PORT = 5201
SERVER = ADDRESSES["server"]
CIPHER = "TLS_AES_128_GCM_SHA256"
GROUP = "X25519"
NOBODY = 65534


@dataclass(frozen=True)
class Setup:
    programs: str
    """The directory of culvert-proxy, culvert-init and culvert."""
    envoy: str
    identities: Identities


@dataclass
class Contender:
    setup: Setup
    proxies: dict = field(default_factory=dict)
    """Side → the running proxy, during a turn."""

    name = "?"
    has_proxies = True
    groups = None
    """The groups it is measured in; None is all."""

    @contextlib.contextmanager
    def running(self, topology, stranger=None):
        """Both proxies, with their rules. `stranger` names the side whose certificate comes from a
        CA that the other side does not trust. What goes wrong inside is told with what the proxies
        said."""
        self.proxies = {}
        try:
            self.start(topology, stranger)
            yield
        except BenchError as error:
            raise BenchError(f"{self.name}: {error}\n{self._transcript()}".rstrip()) from None
        finally:
            self.proxies = {}

    def start(self, topology, stranger):
        for side in reversed(SIDES):
            self.proxies[side] = self.start_side(topology, side, stranger == side)
            self.intercept(topology, side)

    def start_side(self, topology, side, stranger):
        raise NotImplementedError

    def intercept(self, topology, side):
        raise NotImplementedError

    def given(self):
        """What it was given: program, one line per fact."""
        raise NotImplementedError

    def own_count(self):
        """How many mTLS connections the two proxies themselves say they have had, by side; empty if
        they do not tell."""
        return {}

    def _transcript(self):
        return "\n".join(proxy.transcript() for proxy in self.proxies.values())


class Direct(Contender):
    """No proxy, no rules, no TLS."""

    name = "direct"
    has_proxies = False

    def start(self, topology, stranger):
        pass

    def given(self):
        return {"program": "none", "interception": "none", "tls": "none: plaintext on the wire"}


def redirect_rules(side, exempt, ports=None):
    """What `culvert-init` does for Culvert, for the others: a plain redirect, without its guard.
    `exempt` matches the proxy's own connections; `ports` maps destination ports to listeners, for
    a proxy that cannot tell where a connection was going."""
    if side == "client":
        hook, loopback, listener = "output", "oifname lo", OUTBOUND_PORT
    else:
        hook, loopback, listener = "prerouting", "iifname lo", INBOUND_PORT
    local = "" if side == "client" else "fib daddr type local "
    redirects = [f"{local}meta l4proto tcp redirect to :{listener}"]
    if ports:
        redirects = [f"{local}tcp dport {port} redirect to :{to}" for port, to in ports.items()]
    rules = [f"type nat hook {hook} priority -100", f"{loopback} return"]
    rules += [f"{exempt} return"] if side == "client" else []
    return "table ip bench {\nchain c {\n" + "\n".join(rules + redirects) + "\n}\n}\n"
