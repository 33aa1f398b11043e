"""TLS servers outside the mesh, one for each entry of a JSON list.

Usage: outside.py [{"port": 7001, "certificate": PEM, "key": PEM, "version": "1.2" or "1.3",
                    "clients": PEM of the authorities whose client certificates are demanded,
                    "answers": "http" (at the first blank line) or "mirror" (at the end),
                    "bare": end without close_notify}]

Prints "ready", then one JSON object for each connection.
"""

import json
import socket
import ssl
import sys
import threading

printing = threading.Lock()


def say(port, **what):
    with printing:
        print(json.dumps({"port": port, **what}), flush=True)


def context(entry):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[entry["version"]]
    made.minimum_version = made.maximum_version = version
    made.load_cert_chain(entry["certificate"], entry["key"])
    if entry.get("clients"):
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(entry["clients"])
    return made


def talk(entry, stream, names):
    received = b""
    while more := stream.recv(65536):
        received += more
        if entry["answers"] == "http" and b"\r\n\r\n" in received:
            break
    if entry["answers"] == "http":
        stream.sendall(b"HTTP/1.0 200 OK\r\n\r\nanswer to " + received.split(b"\r\n")[0])
    else:
        stream.sendall(received)
    shown = stream.getpeercert() or {}
    say(entry["port"], version=stream.version(), sni=names.get(stream), bytes=len(received),
        serial=shown.get("serialNumber"))
    if entry.get("bare"):
        stream.shutdown(socket.SHUT_WR)
        stream.close()
    else:
        stream.unwrap().close()


def serve(entry, listener):
    made = context(entry)
    names = {}
    made.sni_callback = lambda stream, name, _: names.__setitem__(stream, name)

    def one(connection):
        try:
            connection.settimeout(60)
            talk(entry, made.wrap_socket(connection, server_side=True,
                                         suppress_ragged_eofs=False), names)
        except OSError as error:
            say(entry["port"], error=getattr(error, "reason", None) or str(error))
            connection.close()

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


listeners = []
for entry in json.loads(sys.argv[1]):
    listener = socket.create_server(("::", entry["port"]), family=socket.AF_INET6, backlog=64,
                                    dualstack_ipv6=True)
    threading.Thread(target=serve, args=(entry, listener), daemon=True).start()
    listeners.append(listener)
print("ready", flush=True)
threading.Event().wait()
