"""hold.py ADDRESS PORT COUNT: opens connections, has each answer one HTTP request, says "open",
keeps them until a line comes on standard input, closes them, says "closed"."""
import socket
import sys


def answered(address, port):
    connection = socket.create_connection((address, port), timeout=10)
    connection.sendall(b"GET /echo/held HTTP/1.1\r\nHost: bench\r\n\r\n")
    answer = b""
    while not answer.endswith(b"/echo/held"):
        chunk = connection.recv(4096)
        if not chunk:
            raise ConnectionError(f"closed after {answer!r}")
        answer += chunk
    return connection


def main():
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    held = [answered(address, port) for _ in range(count)]
    print("open", flush=True)
    sys.stdin.readline()
    for connection in held:
        connection.close()
    print("closed", flush=True)


main()
