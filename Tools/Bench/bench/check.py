"""The proof that what is measured is mutual TLS: before a contender is measured, not after."""
import re
import secrets

from .contenders.contender import HTTP_PORT
from .machine import BenchError, wait_until
from .topology import DEVICE, SIDES, Topology
from .workloads import Workloads

# A ServerHello up to its key share: cipher suite, supported_versions = TLS 1.3 (RFC 8446, 4.1.3).
SERVER_HELLO = re.compile(
    rb"\x16\x03\x03..\x02...\x03\x03.{32}(?:\x20.{32}|\x00)(..)\x00..(.{0,200}?\x00\x2b\x00\x02"
    rb"\x03\x04.{0,200})", re.DOTALL)
KEY_SHARE = re.compile(rb"\x00\x33\x00.(..)", re.DOTALL)
TLS_AES_128_GCM_SHA256 = b"\x13\x01"
X25519 = b"\x00\x1d"
DISCARD_PORT = 9


def prove(contender):
    """Evidence for the report; raises where the contender is not what the table says of it."""
    recording, canary, own_count = _exchange(contender)
    evidence = {"canary_on_the_wire": recording.count(canary)}
    if not contender.has_proxies:
        # The twin of the probe: what the capture can see, it sees.
        if not evidence["canary_on_the_wire"]:
            raise BenchError("the capture does not see plaintext where there is no proxy")
        return evidence
    if evidence["canary_on_the_wire"]:
        raise BenchError(f"{contender.name}: plaintext on the wire")
    evidence |= _handshake(contender, recording)
    if own_count:
        evidence["mtls_connections_by_own_count"] = own_count
        if 0 in own_count.values():
            raise BenchError(f"{contender.name} counted no mTLS connection: {own_count}")
    for side in SIDES:
        _expect_refusal(contender, side)
        evidence[f"stranger_as_{side}"] = "refused"
    return evidence


def _exchange(contender):
    """(what was on the wire, the canary, the proxies' own counts) of one answered request."""
    canary = f"canary-{secrets.token_hex(8)}"
    with Topology() as topology:
        workloads = Workloads(topology)
        workloads.start_web_server()
        with contender.running(topology):
            capture, path = _start_capture(topology)
            answer = workloads.fetch(f"/echo/{canary}")
            if answer != f"/echo/{canary}":
                raise BenchError(f"the answer is not the server's: {answer!r}")
            return _finish_capture(topology, capture, path), canary.encode(), contender.own_count()


def _handshake(contender, recording):
    hello = SERVER_HELLO.search(recording)
    if not hello:
        raise BenchError(f"{contender.name}: no TLS 1.3 ServerHello on the wire")
    suite, extensions = hello.groups()
    share = KEY_SHARE.search(extensions)
    if suite != TLS_AES_128_GCM_SHA256 or not share or share.group(1) != X25519:
        raise BenchError(
            f"{contender.name}: not the agreed cipher and group: {suite.hex()}, {extensions.hex()}")
    return {"cipher": "TLS_AES_128_GCM_SHA256", "group": "X25519"}


def _expect_refusal(contender, side):
    """A peer with a certificate of an unknown CA gets no byte through."""
    with Topology() as topology:
        workloads = Workloads(topology)
        workloads.start_web_server()
        with contender.running(topology, stranger=side):
            try:
                workloads.fetch("/small")
            except BenchError:
                return
    raise BenchError(f"{contender.name} accepts a stranger's certificate as {side}")


def _start_capture(topology):
    path = f"{topology.directory}/wire.pcap"
    capture = topology.start(
        "server", "tcpdump", "tcpdump", "-i", DEVICE, "-w", path, "-U", "--immediate-mode", "-s",
        "0", "-n", "-Z", "root", f"tcp port {HTTP_PORT} or tcp portrange 15000-16000 or udp")
    capture.wait_until("tcpdump listens", lambda: "listening on" in capture.transcript())
    return capture, path


def _finish_capture(topology, capture, path):
    """All that was sent is in the file once a datagram sent last is."""
    marker = f"end-{secrets.token_hex(8)}"
    topology.run("client", "bash", "-c", f"printf {marker} >/dev/udp/10.90.0.2/{DISCARD_PORT}")

    def recorded():
        with open(path, "rb") as file:
            recording = file.read()
        return recording if marker.encode() in recording else None

    recording = wait_until("the capture is complete", recorded)
    capture.stop()
    return recording
