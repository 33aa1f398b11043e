"""Two network namespaces joined by a veth pair: `client` has the load generators, `server` the
applications. Every turn of a contender gets fresh ones, so that it starts without another's sockets
and connection tracking."""
import contextlib
import glob
import os
import signal
import tempfile

from .machine import Program, run

SIDES = ("client", "server")
ADDRESSES = {"client": "10.90.0.1", "server": "10.90.0.2"}
DEVICE = "eth0"
NAME_PREFIX = "culvert-bench-"

# New connections come faster than the 28,000 default ports leave TIME-WAIT. Per namespace.
SYSCTLS = {"net/ipv4/ip_local_port_range": "10000 65000", "net/ipv4/tcp_tw_reuse": "1"}


class Topology:
    """Use as a context: everything started or made in it is gone afterwards."""

    def __init__(self):
        self._owned = contextlib.ExitStack()
        self.directory = None

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self._owned.close()
            raise
        return self

    def __exit__(self, *_):
        self._owned.close()

    def _make(self):
        temporary = tempfile.TemporaryDirectory(prefix=f"{NAME_PREFIX}{os.getpid()}-")
        self.directory = self._owned.enter_context(temporary)
        os.chmod(self.directory, 0o755)  # proxies that give up root must read their files
        for side in SIDES:
            run("ip", "netns", "add", self.namespace(side))
            self._owned.callback(remove_namespace, self.namespace(side))
            run("ip", "-n", self.namespace(side), "link", "set", "lo", "up")
            for key, value in SYSCTLS.items():
                self.run(side, "sh", "-c", f"echo {value} >/proc/sys/{key}")
        run("ip", "link", "add", DEVICE, "netns", self.namespace("client"), "type", "veth",
            "peer", "name", DEVICE, "netns", self.namespace("server"))
        for side in SIDES:
            run("ip", "-n", self.namespace(side), "link", "set", DEVICE, "up")
            run("ip", "-n", self.namespace(side), "addr", "add", ADDRESSES[side] + "/24", "dev",
                DEVICE)

    @staticmethod
    def namespace(side):
        return f"{NAME_PREFIX}{os.getpid()}-{side}"

    def run(self, side, *command, **options):
        return run("ip", "netns", "exec", self.namespace(side), *command, **options)

    def start(self, side, name, *command):
        """A program that lives until it is stopped, or the topology ends."""
        program = Program(self.namespace(side), name, command, self.directory)
        self._owned.callback(program.stop)
        return program

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def load_rules(self, side, rules):
        self.run(side, "nft", "--file", "-", text=rules)


def remove_namespace(name):
    """With whatever still runs in it: it is ours alone."""
    for pid in run("ip", "netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "del", name)


def remove_leftovers():
    """Namespaces of runs that were killed: the runner's process ID is in the name."""
    for path in glob.glob(f"/run/netns/{NAME_PREFIX}*"):
        name = os.path.basename(path)
        owner = name.removeprefix(NAME_PREFIX).partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            remove_namespace(name)


@contextlib.contextmanager
def interruptible():
    """SIGTERM and SIGHUP unwind like Ctrl-C; a second one does not leave half of it behind."""
    def unwind(number, _):
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, unwind)
    yield
