"""Where a contender's time goes under one load: functions by `perf`, system calls by `strace`."""
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
SHOWN_FUNCTIONS = 30
SHOWN_CALLS = 12


def profile(contender, load, seconds, say):
    """Two runs: `strace` slows a program down so much that it must not be in `perf`'s picture."""
    if not contender.has_proxies:
        raise BenchError(f"{contender.name} has no proxy to profile")
    with Topology() as topology:
        workloads = Workloads(topology)
        workloads.start_web_server()
        workloads.start_bulk_server()
        with contender.running(topology):
            _apply(workloads, load, WARM_UP_SECONDS)
            _functions(contender, topology, load, seconds, say)
            _system_calls(contender, topology, load, seconds, say)


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


def _functions(contender, topology, load, seconds, say):
    recorders = [
        (side, f"{topology.directory}/{side}.perf", _observe(
            "perf", "record", "--quiet", "--event", "cpu-clock", "--freq", str(SAMPLES_PER_SECOND),
            "--call-graph", "fp", "--output", f"{topology.directory}/{side}.perf", "--pid",
            _process_list(contender.proxies[side])))
        for side in SIDES]
    cost = Cost(contender)
    units, unit = _apply(Workloads(topology), load, seconds)
    say(f"{load}: {units:.0f} {unit}s, {cost.seconds() / units * 1e6:.1f} µs CPU of both proxies "
        f"for each")
    for side, path, recorder in recorders:
        _end(recorder)
        report = run(
            "perf", "report", "--input", path, "--stdio", "--no-children", "--call-graph", "none",
            "--sort", "dso,symbol", "--percent-limit", "0.5", timeout=120)
        lines = [line.rstrip() for line in report.splitlines() if re.match(r" +\d", line)]
        say(f"\n{side}: functions by their own time")
        say("\n".join(lines[:SHOWN_FUNCTIONS]))


def _system_calls(contender, topology, load, seconds, say):
    tracers = [
        (side, f"{topology.directory}/{side}.strace", _observe(
            "strace", "-c", "-f", "-U", "calls,errors,name", "-S", "calls", "-o",
            f"{topology.directory}/{side}.strace",
            *[word for pid in _process_list(contender.proxies[side]).split(",")
              for word in ("-p", pid)]))
        for side in SIDES]
    units, unit = _apply(Workloads(topology), load, seconds)
    for side, path, tracer in tracers:
        _end(tracer)
        say(f"\n{side}: system calls for each {unit} ({units:.0f} while traced)")
        with open(path, encoding="utf-8") as file:
            calls = re.findall(r"^ *(\d+) +(\d+)? +(\w+)$", file.read(), re.MULTILINE)
        for count, errors, name in calls[:SHOWN_CALLS]:
            failed = f"  ({int(errors) / units:.2f} failed)" if errors else ""
            say(f"  {int(count) / units:8.2f}  {name}{failed}")


def _process_list(program):
    return ",".join(str(pid) for pid in program.process_ids())


def _observe(*command):
    observer = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True)
    time.sleep(1)  # neither program says when it has attached
    if observer.poll() is not None:
        raise BenchError(f"{command[0]} ended: {observer.stderr.read()}")
    return observer


def _end(observer):
    observer.send_signal(signal.SIGINT)
    observer.communicate(timeout=30)
