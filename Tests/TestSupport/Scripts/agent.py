"""A Workload API agent on grpcio, told on standard input what to do.

Usage: agent.py ADDRESS [--ping-strikes]

Commands, one a line; each is answered with "ok":
  message HEX N      all calls send this message and N zero bytes now, and new ones send it first
  fail CODE TEXT     all calls end with this status, and new ones as well
  end                all calls end with OK
  pause              new calls are not answered
Reported, one a line: "listening", "call METHOD METADATA", "over".
"""

import queue
import sys
import threading
from concurrent import futures

import grpc


class Agent(grpc.GenericRpcHandler):
    def __init__(self):
        self.lock = threading.Lock()
        self.calls = []
        self.state = None

    def tell(self, state, keep=True):
        with self.lock:
            self.state = state if keep else None
            for call in self.calls:
                call.put(state)

    def service(self, details):
        def handle(request, context):
            mine = queue.Queue()
            fields = " ".join(f"{key}={value}" for key, value in sorted(details.invocation_metadata))
            context.add_callback(lambda: mine.put(("over",)))
            with self.lock:
                self.calls.append(mine)
                if self.state:
                    mine.put(self.state)
                say(f"call {details.method} request={request.hex()} {fields}")
            try:
                while True:
                    what, *rest = mine.get()
                    if what == "message":
                        yield rest[0]
                    elif what == "fail":
                        context.abort(getattr(grpc.StatusCode, rest[0]), rest[1])
                    elif what in ("end", "over"):
                        return
            finally:
                with self.lock:
                    self.calls.remove(mine)
                say("over")

        # Without serializers messages are bytes.
        return grpc.unary_stream_rpc_method_handler(handle)


def say(text):
    # In one piece: several threads speak.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main():
    address, *flags = sys.argv[1:]
    options = [("grpc.max_send_message_length", -1)]
    if "--ping-strikes" in flags:
        options.append(("grpc.http2.max_ping_strikes", 1))
    agent = Agent()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    server.add_generic_rpc_handlers((agent,))
    server.add_insecure_port(address)
    server.start()
    say("listening")
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        if command == "message":
            text, zeros = rest.split(" ")
            agent.tell(("message", bytes.fromhex(text) + bytes(int(zeros))))
        elif command == "fail":
            agent.tell(("fail", *rest.split(" ", 1)))
        elif command == "end":
            agent.tell(("end",), keep=False)
        elif command == "pause":
            agent.tell(("pause",), keep=False)
        else:
            sys.exit(f"no such command: {command}")
        say("ok")
    server.stop(None)


main()
