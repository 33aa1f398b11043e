"""A web server with a bundle, and with everything that can be wrong about one.

    endpoint.py CERTIFICATE KEY BUNDLE [--plain]

Says "listening on PORT" and, for each request that arrives over TLS, "request PATH HOST SNI". The
path chooses the answer. Ends when its input does.
"""

import http.server
import pathlib
import ssl
import sys
import threading
import urllib.parse

CERTIFICATE, KEY, BUNDLE = sys.argv[1:4]
NEVER = threading.Event()


def say(text):
    print(text, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        name = self.connection.server_name if hasattr(self.connection, "server_name") else "-"
        say(f"request {self.path} {self.headers['Host']} {name}")
        self.query = dict(urllib.parse.parse_qsl(address.query))
        self.body = pathlib.Path(BUNDLE).read_bytes()
        self.close_connection = True
        try:
            getattr(self, "answer_" + address.path.strip("/").replace("-", "_"))()
        except OSError:
            pass  # The client has seen enough.

    def raw(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def fields(self, *fields, status="200 OK"):
        lines = [f"HTTP/1.1 {status}", *fields, "", ""]
        self.raw("\r\n".join(lines).encode())

    def orderly_end(self):
        self.wfile.flush()
        self.connection.settimeout(5)
        self.connection.unwrap()

    def answer_bundle(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def answer_chunked(self):
        self.fields("Transfer-Encoding: chunked")
        for start in range(0, len(self.body), 100):
            part = self.body[start : start + 100]
            self.raw(b"%x;extension=1\r\n%s\r\n" % (len(part), part))
        self.raw(b"0\r\nTrailer: yes\r\n\r\n")

    def answer_until_close(self):
        self.fields("Connection: close")
        self.raw(self.body)
        self.orderly_end()

    def answer_interim(self):
        self.fields("Location: /status?code=404", status="103 Early Hints")
        self.fields("Content-Length: 5", status="103 Early Hints")
        self.answer_bundle()

    def answer_truncated_length(self):
        self.fields(f"Content-Length: {len(self.body)}")
        self.raw(self.body[:-1])
        self.orderly_end()

    def answer_truncated_chunks(self):
        self.fields("Transfer-Encoding: chunked")
        self.raw(b"%x\r\n%s\r\n" % (len(self.body), self.body))
        self.orderly_end()

    def answer_cut(self):
        self.fields("Connection: close")
        self.raw(self.body)
        # No close_notify: whoever cuts the connection decides where the body ends.
        self.connection.shutdown(2)

    def answer_giant_length(self):
        self.fields(f"Content-Length: {2**62}")

    def answer_giant_chunks(self):
        self.fields("Transfer-Encoding: chunked")
        part = b"%x\r\n%s\r\n" % (65536, b" " * 65536)
        while True:
            self.raw(part)

    def answer_giant_header(self):
        self.raw(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.raw(b"X: %s\r\n" % (b"x" * 1000))

    def answer_endless_interim(self):
        while True:
            self.fields(status="103 Early Hints")

    def answer_slow(self):
        self.fields(f"Content-Length: {len(self.body)}")
        for byte in self.body:
            self.raw(bytes([byte]))
            NEVER.wait(0.02)

    def answer_silent(self):
        NEVER.wait(60)

    def answer_status(self):
        self.fields("Content-Length: 2", status=self.query["code"] + " Whatever")
        self.raw(b"{}")

    def answer_redirect(self):
        code = self.query.get("code", "302")
        self.fields("Location: " + self.query["to"], "Content-Length: 0", status=code + " Found")

    def answer_redirect_twice(self):
        self.fields("Location: /bundle", "Location: /chunked", status="302 Found")

    def answer_redirect_nowhere(self):
        self.fields("Content-Length: 0", status="302 Found")

    def answer_hops(self):
        left = int(self.query["left"])
        self.query["to"] = f"/hops?left={left - 1}" if left > 0 else "/bundle"
        self.answer_redirect()

    def answer_not_a_bundle(self):
        self.body = b'{"keys":[],"keys":[]}'
        self.answer_bundle()

    def answer_garbage(self):
        self.raw(bytes(range(256)) * 16)

    def answer_both_lengths(self):
        self.fields(f"Content-Length: {len(self.body)}", "Transfer-Encoding: chunked")
        self.raw(b"0\r\n\r\n")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # A client that refuses the certificate is no error.


server = Server(("127.0.0.1", 0), Handler)
if "--plain" not in sys.argv:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)

    def remember_name(connection, name, _):
        connection.server_name = name

    context.sni_callback = remember_name
    # The handshake belongs into the connection's own thread.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
threading.Thread(target=server.serve_forever, daemon=True).start()
say(f"listening on {server.server_address[1]}")
sys.stdin.read()  # Ends with whoever started this.
