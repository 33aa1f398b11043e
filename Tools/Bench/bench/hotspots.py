"""Where a contender's time goes under one load, by `perf`: functions, and counts of what they ask
the kernel for. Counting costs a program little; `strace` and `perf trace` slow it to a crawl, and
what a proxy then finds to do in one go is no longer what it finds in operation."""
import re
import signal
import subprocess
import time

from .machine import BenchError, run
from .measures import Cost
from .topology import SIDES, Topology
from .workloads import WARM_UP_SECONDS, Workloads

LOADS = ("bulk-up", "bulk-down", "requests-1", "requests-32", "connections")
SAMPLES_PER_SECOND = 999
# perf does not say when it has attached.
ATTACH_SECONDS = 1
SHOWN_FUNCTIONS = 25
SHOWN_CALLERS = 45
NAMELESS = re.compile(r"\] 0x[0-9a-f]+$")
SYSTEM_CALLS = (
    "io_uring_enter", "epoll_wait", "epoll_ctl", "accept4", "socket", "connect", "close",
    "shutdown", "read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg",
    "splice", "setsockopt", "getsockopt", "getsockname", "futex", "getpid", "clock_gettime",
    "mmap", "munmap", "madvise", "brk")
EVENTS = {
    "system calls": "raw_syscalls:sys_enter",
    "io_uring operations": "io_uring:io_uring_submit_req",
    "io_uring completions": "io_uring:io_uring_complete",
    "context switches": "context-switches",
    **{f"  {name}": f"syscalls:sys_enter_{name}" for name in SYSTEM_CALLS},
}
# Less than this for each unit of work is not shown.
SMALLEST_COUNT = 0.005


def profile(contender, load, seconds, say):
    if not contender.has_proxies:
        raise BenchError(f"{contender.name} has no proxy to profile")
    with Topology() as topology:
        workloads = Workloads(topology)
        workloads.start_web_server()
        workloads.start_bulk_server()
        with contender.running(topology):
            _apply(workloads, load, WARM_UP_SECONDS)
            _count(contender, topology, load, seconds, say)
            _sample(contender, topology, load, seconds, say)


def _apply(workloads, load, seconds):
    """Returns (units of work, their name)."""
    kind, _, detail = load.partition("-")
    if kind == "bulk":
        count, _ = workloads.bulk(seconds, down=detail == "down")
        return count / 1e6, "MB"
    if kind == "requests":
        return workloads.requests("/small", int(detail), seconds)["requests"], "request"
    report = workloads.requests("/small", 16, seconds, new_connections=True)
    return report["requests"], "connection"


def _count(contender, topology, load, seconds, say):
    counters = _observe(contender, topology, "perf", "stat", "--field-separator", ",", "--event",
                        ",".join(EVENTS.values()))
    cost = Cost(contender)
    units, unit = _apply(Workloads(topology), load, seconds)
    say(f"{load}: {units:.0f} {unit}s, {cost.seconds() / units * 1e6:.1f} µs CPU of both proxies "
        f"for each")
    counts = {}
    for side, path in _end(counters):
        with open(path, encoding="utf-8") as file:
            lines = [line.split(",") for line in file if line.count(",") > 2]
        counts[side] = {fields[2]: int(fields[0]) / units for fields in lines
                        if fields[0].isdigit()}
    say(f"\n{'for each ' + unit:<24}" + "".join(f"{side:>10}" for side in SIDES))
    for name, event in EVENTS.items():
        row = [counts[side].get(event, 0) for side in SIDES]
        if max(row) >= SMALLEST_COUNT:
            say(f"{name:<24}" + "".join(f"{value:10.2f}" for value in row))


def _sample(contender, topology, load, seconds, say):
    recorders = _observe(
        contender, topology, "perf", "record", "--quiet", "--event", "cpu-clock", "--freq",
        str(SAMPLES_PER_SECOND), "--call-graph", "fp")
    _apply(Workloads(topology), load, seconds)
    for side, path in _end(recorders):
        for title, limit, sort, how in (
                ("time by program and library", 8, "dso", "--no-children"),
                ("functions, by their own time", SHOWN_FUNCTIONS, "dso,symbol", "--no-children"),
                ("functions, with all they call", SHOWN_CALLERS, "symbol", "--children")):
            report = run(
                "perf", "report", "--input", path, "--stdio", "--call-graph", "none", "--fields",
                f"{'overhead_children,' if how == '--children' else ''}overhead,{sort}", how,
                timeout=120)
            lines = [line.rstrip() for line in report.splitlines()
                     if re.match(r" +\d", line) and not NAMELESS.search(line)]
            say(f"\n{side}: {title}")
            say("\n".join(lines[:limit]))


def _observe(contender, topology, *command):
    """[(side, where its findings go, observer)]: attached to both proxies."""
    observers = []
    for side in SIDES:
        path = f"{topology.directory}/{side}.{command[1]}"
        processes = ",".join(str(pid) for pid in contender.proxies[side].process_ids())
        observers.append((side, path, subprocess.Popen(
            [*command, "--output", path, "--pid", processes], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True)))
    time.sleep(ATTACH_SECONDS)
    for _, _, observer in observers:
        if observer.poll() is not None:
            raise BenchError(f"{' '.join(command)}: {observer.stderr.read()}")
    return observers


def _end(observers):
    for side, path, observer in observers:
        observer.send_signal(signal.SIGINT)
        observer.communicate(timeout=30)
        yield side, path
