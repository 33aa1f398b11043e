"""A program at one end of a test's connection. It says on standard output what happened, one line
each, and takes commands on standard input.

  sink PORT...           accept on every port, IPv4 and IPv6, and read
  resetter PORT...       accept on every port, IPv4 and IPv6, and reset at once
  client ADDRESS PORT    connect; then: flood TEXT | send TEXT BYTES | retried | close
  forge ADDRESS PORT TEXT   send a TCP segment that belongs to no connection
  datagram ADDRESS PORT TEXT [SOURCE_PORT]
  answer PORT TEXT       answer each datagram
  pour PORT TEXT         accept one connection; at a line on standard input, write without end
"""
import os
import selectors
import socket
import struct
import sys
import time

TCP_INFO_PROBES = 3  # offset of tcpi_probes in struct tcp_info


def say(*words):
    print(*words, flush=True)


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener(port):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    s.listen(64)
    return s


def resetter(*ports):
    selector = selectors.DefaultSelector()
    for port in ports:
        selector.register(listener(int(port)), selectors.EVENT_READ)
    say("ready")
    while True:
        for key, _ in selector.select():
            connection, _ = key.fileobj.accept()
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()


def sink(*ports):
    selector = selectors.DefaultSelector()
    for port in ports:
        selector.register(listener(int(port)), selectors.EVENT_READ, None)
    say("ready")
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, peer = key.fileobj.accept()
                state = {"port": connection.getsockname()[1], "bytes": 0}
                selector.register(connection, selectors.EVENT_READ, state)
                say("accepted", state["port"])
                continue
            try:
                data = key.fileobj.recv(1 << 16)
            except OSError:
                data = None
            if data:
                key.data["bytes"] += len(data)
                continue
            say("closed" if data == b"" else "reset", key.data["port"], key.data["bytes"])
            selector.unregister(key.fileobj)
            key.fileobj.close()


def flood(connection, text):
    connection.settimeout(0.001)
    first = True
    while True:
        try:
            connection.send(text.encode() * 8)
            if first:
                say("flooding")
            first = False
        except TimeoutError:
            pass
        except OSError as error:
            say("failed", error.__class__.__name__)
            return


def client(address, port):
    connection = socket.socket(family(address))
    connection.settimeout(10)
    try:
        connection.connect((address, int(port)))
    except OSError as error:
        say("failed", error.__class__.__name__)
        return
    say("connected")
    for line in sys.stdin:
        command, *words = line.split()
        if command == "flood":
            flood(connection, words[0])
        elif command == "send":
            text = words[0].encode()
            try:
                connection.sendall((text * (int(words[1]) // len(text) + 1))[: int(words[1])])
                say("sent")
            except OSError as error:
                say("failed", error.__class__.__name__)
        elif command == "retried":
            # What is dropped on its way out counts as not sent: TCP probes, and sends it again.
            while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[TCP_INFO_PROBES] < 2:
                time.sleep(0.01)
            say("retried")
        elif command == "close":
            connection.close()
            say("closed")


def forge(address, port, text):
    s = socket.socket(family(address), socket.SOCK_RAW, socket.IPPROTO_TCP)
    flags = 0x01  # FIN alone: connection tracking calls it invalid
    header = struct.pack("!HHIIBBHHH", 40000, int(port), 1, 0, 5 << 4, flags, 1024, 0, 0)
    try:
        s.sendto(header + text.encode(), (address, 0))
        say("sent")
    except PermissionError:
        say("refused")  # what a dropping rule in a local hook tells a raw socket


def datagram(address, port, text, source="0"):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.bind(("", int(source)))
    s.settimeout(0.5)
    try:
        s.sendto(text.encode(), (address, int(port)))
        say("answered", s.recv(100).decode())
    except OSError as error:
        say("failed", error.__class__.__name__)


def answer(port, text):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", int(port)))
    say("ready")
    while True:
        _, peer = s.recvfrom(1000)
        s.sendto(text.encode(), peer)


def pour(port, text):
    s = listener(int(port))
    say("ready")
    connection, _ = s.accept()
    say("accepted", port)
    sys.stdin.readline()
    flood(connection, text)


globals()[sys.argv[1]](*sys.argv[2:])
