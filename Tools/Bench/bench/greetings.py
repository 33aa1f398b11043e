"""Server-first protocols: how long a client waits for a greeting through a permissive proxy, beside
the same server on a port that is not intercepted, in one run, connection by connection in turn.

Once from a client without a proxy, whose silence has to be waited for, and once from one with a
proxy, which announces and speaks mTLS."""
import argparse
import json
import os
import shutil
import statistics
import sys
import time

from .contenders.contender import SERVER
from .contenders.culvert import CONFIGURATION
from .identities import Identities, TRUST_DOMAIN
from .machine import BenchError, run, wait_until
from .topology import Topology, interruptible, remove_leftovers

# Of each server: the port that is intercepted, and the one that is not.
PORTS = {"smtp": (2525, 2526), "ftp": (2121, 2122), "mariadb": (3306, 3307)}
EXCLUDED = sorted(direct for _, direct in PORTS.values())
DIRECTIONS = {
    "client": "outbound: { mode: auto }",
    "server": "inbound: { mode: permissive }",
}
INTERCEPTION = f"interception: {{ excludeInboundPorts: {EXCLUDED}, excludeOutboundPorts: {EXCLUDED} }}"

GREETER = """\
import selectors, socket, sys
greeting = sys.argv[1].encode() + b"\\r\\n"
selector = selectors.DefaultSelector()
for port in sys.argv[2:]:
    listener = socket.create_server(("0.0.0.0", int(port)), backlog=512)
    selector.register(listener, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(greeting)
        connection.close()
"""
CLIENT = """\
import json, socket, sys, time
address, count, ports = sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]]
taken = {port: [] for port in ports}
for _ in range(count):
    for port in ports:
        start = time.perf_counter()
        with socket.create_connection((address, port), timeout=10) as connection:
            if not connection.recv(1):
                sys.exit(f"no greeting on port {port}")
            taken[port].append((time.perf_counter() - start) * 1e3)
            while connection.recv(4096):
                if port in (3306, 3307):
                    break
print(json.dumps([taken[port] for port in ports]))
"""


def main():
    options = _parse()
    with interruptible():
        remove_leftovers()
        try:
            results = _measure(options)
        except BenchError as error:
            sys.exit(f"bench: {error}")
    if options.json:
        print(json.dumps(results))
    else:
        for line in _table(results):
            print(line)


def _parse():
    parser = argparse.ArgumentParser(prog="Scripts/bench --greetings", description=__doc__)
    parser.add_argument("--programs", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=300, metavar="N",
                        help="to each port (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _measure(options):
    results = []
    with Topology() as topology:
        _start_servers(topology)
        identities = Identities(os.path.join(options.programs, "culvert"), topology.directory)
        _start_proxy(topology, identities, options.programs, "server")
        results += _round(topology, options, "without a proxy")
        _start_proxy(topology, identities, options.programs, "client")
        results += _round(topology, options, "with a proxy")
    return results


def _start_servers(topology):
    greetings = {"smtp": "220 bench ESMTP", "ftp": "220 bench FTP"}
    for name, greeting in greetings.items():
        program = topology.start(
            "server", name, "/usr/bin/python3", "-c", GREETER, greeting,
            *(str(port) for port in PORTS[name]))
        program.wait_until("it is ready", lambda program=program: "ready" in program.output())
    if shutil.which("mariadbd"):
        _start_database(topology)


def _start_database(topology):
    """One server; its other port is a redirect in the namespace, behind the proxy's own rules."""
    data = os.path.join(topology.directory, "mariadb")
    os.mkdir(data)
    shutil.chown(data, "mysql")
    run("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}",
        "--auth-root-authentication-method=normal", timeout=120)
    program = topology.start(
        "server", "mariadbd", "mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}",
        f"--socket={data}/socket", f"--pid-file={data}/pid", "--skip-name-resolve",
        f"--port={PORTS['mariadb'][0]}", "--bind-address=0.0.0.0", "--max-connect-errors=1000000",
        f"--extra-port={PORTS['mariadb'][1]}", "--extra-max-connections=100")
    program.wait_for_listener(PORTS["mariadb"][0])


def _start_proxy(topology, identities, programs, side):
    credential = identities.get(side)
    socket = os.path.join(topology.directory, f"culvert-{side}.sock")
    configuration = topology.write(f"culvert-{side}.yaml", CONFIGURATION.format(
        certificate=credential.certificate, private_key=credential.private_key,
        bundle=credential.bundle, trust_domain=TRUST_DOMAIN, direction=DIRECTIONS[side],
        socket=socket, extra=INTERCEPTION))
    topology.start(side, f"culvert-proxy-{side}", os.path.join(programs, "culvert-proxy"),
                   "--config", configuration)
    culvert = os.path.join(programs, "culvert")
    wait_until(f"the proxy of {side} is ready", lambda: os.path.exists(socket))
    run(culvert, "status", "--wait", "15", "--admin-socket", socket)
    run(os.path.join(programs, "culvert-init"), "install", "--netns", topology.namespace(side),
        "--config", configuration)


def _round(topology, options, client):
    results = []
    for name, (intercepted, direct) in PORTS.items():
        if name == "mariadb" and not shutil.which("mariadbd"):
            continue
        time.sleep(0.2)
        through, beside = json.loads(topology.run(
            "client", "/usr/bin/python3", "-c", CLIENT, SERVER, str(options.connections),
            str(intercepted), str(direct), timeout=600))
        results.append({
            "client": client, "server": name, "connections": options.connections,
            "direct_ms": statistics.median(beside), "through_ms": statistics.median(through),
            "through_p95_ms": statistics.quantiles(through, n=20)[18],
            "direct_p95_ms": statistics.quantiles(beside, n=20)[18]})
    return results


def _table(results):
    yield ("client           server    direct p50   through p50   added p50   direct p95"
           "   through p95")
    for result in results:
        added = result["through_ms"] - result["direct_ms"]
        yield (f"{result['client']:<15}  {result['server']:<8}  {result['direct_ms']:>7.2f} ms"
               f"   {result['through_ms']:>8.2f} ms  {added:>7.2f} ms"
               f"   {result['direct_p95_ms']:>7.2f} ms   {result['through_p95_ms']:>8.2f} ms")


main()
