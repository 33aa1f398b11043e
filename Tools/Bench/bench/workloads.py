"""The applications in `server`, and the load generators in `client`."""
import json
import os
import sys

from .contenders.contender import BULK_PORT, HTTP_PORT, SERVER
from .machine import BenchError, descriptor_limit

SMALL_BODY_BYTES = 128
LARGE_BODY_BYTES = 65_536
WARM_UP_SECONDS = 1
# What a load generator may take beyond its own time: start, last answers.
GRACE_SECONDS = 20

WEB_SERVER = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {directory}/web.pid;
error_log stderr error;
events {{ worker_connections {descriptors}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  sendfile on;
  open_file_cache max=10;
  server {{
    listen {port} backlog=4096;
    root {directory}/www;
    default_type text/plain;
    location = /small {{ return 200 "{small}"; }}
    location /echo/ {{ return 200 "$request_uri"; }}
  }}
}}
"""

# wrk's own report rounds; this one does not. Latencies are in microseconds.
WRK_REPORT = """\
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'REPORT {"requests": %d, "microseconds": %d, "errors": %d, "p50": %d, "p99": %d}\\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Workloads:
    def __init__(self, topology):
        self._topology = topology
        self._wrk_report = topology.write("report.lua", WRK_REPORT)

    def start_web_server(self):
        topology = self._topology
        os.mkdir(os.path.join(topology.directory, "www"), 0o755)
        topology.write("www/large", "x" * LARGE_BODY_BYTES)
        configuration = topology.write("web.conf", WEB_SERVER.format(
            descriptors=descriptor_limit(), directory=topology.directory, port=HTTP_PORT,
            small="x" * SMALL_BODY_BYTES))
        topology.start(
            "server", "web-server", "nginx", "-c", configuration, "-p", topology.directory, "-e",
            "stderr").wait_for_listener(HTTP_PORT)

    def start_bulk_server(self):
        self._topology.start(
            "server", "iperf3-server", "iperf3", "--server", "--port", str(BULK_PORT)
        ).wait_for_listener(BULK_PORT)

    def fetch(self, path):
        """One request through whatever is in between."""
        return self._topology.run(
            "client", "curl", "--silent", "--show-error", "--fail", "--max-time", "5",
            f"http://{SERVER}:{HTTP_PORT}{path}")

    def requests(self, path, connections, seconds, new_connections=False):
        """A closed loop of HTTP requests; `new_connections` opens one for each request."""
        command = [
            "wrk", "--threads", "1", "--connections", str(connections), "--duration",
            f"{seconds}s", "--timeout", "5s", "--script", self._wrk_report]
        command += ["--header", "Connection: close"] if new_connections else []
        output = self._topology.run(
            "client", *command, f"http://{SERVER}:{HTTP_PORT}{path}",
            timeout=seconds + GRACE_SECONDS)
        line = next((line for line in output.splitlines() if line.startswith("REPORT ")), None)
        if line is None:
            raise BenchError(f"wrk did not report:\n{output}")
        report = json.loads(line.removeprefix("REPORT "))
        # A connection cut at the end of the run is not an error of the proxy; more than that is.
        if report["requests"] == 0 or report["errors"] > connections:
            raise BenchError(f"wrk {path} with {connections} connections had errors:\n{output}")
        return report

    def bulk(self, seconds, down):
        """One stream; returns (bytes, seconds) as the receiver saw them."""
        command = [
            "iperf3", "--client", SERVER, "--port", str(BULK_PORT), "--time", str(seconds),
            "--json"]
        command += ["--reverse"] if down else []
        report = json.loads(
            self._topology.run("client", *command, timeout=seconds + GRACE_SECONDS))
        received = report["end"]["sum_received"]
        if received["bytes"] == 0:
            raise BenchError("iperf3 moved no bytes")
        return received["bytes"], received["seconds"]

    def hold_connections(self, count):
        """A program that opens connections, has each answer one request, and keeps them until it is
        told to close them."""
        holder = self._topology.start(
            "client", "holder", sys.executable, os.path.join(os.path.dirname(__file__), "hold.py"),
            SERVER, str(HTTP_PORT), str(count))
        holder.wait_until(
            f"{count} connections are open", lambda: "open\n" in holder.output(), timeout=120)
        return holder
