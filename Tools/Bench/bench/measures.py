"""What is measured, in groups: one turn of a contender each, in fresh namespaces with fresh
proxies."""
import time
from dataclasses import dataclass

from .machine import cpu_seconds, descriptor_count, memory_bytes, wait_until
from .topology import SIDES
from .workloads import WARM_UP_SECONDS

NEW_CONNECTIONS_IN_PARALLEL = 16
CONNECTIONS = (1, 32)
SIZES = {"small": "/small", "64k": "/large"}
# What a proxy may still do after its last connection or byte, before it counts as idle.
SETTLE_SECONDS = 2


@dataclass(frozen=True)
class Measure:
    key: str
    title: str
    unit: str
    more_is_better: bool
    target: float | None = None
    """Culvert's share of Envoy's figure that DESIGN promises: at least, or at most."""
    limit: float | None = None
    """A bound of its own, in `unit`."""


def _measures():
    for direction, words in (("up", "client to server"), ("down", "server to client")):
        yield Measure(f"bulk_{direction}", f"bulk, {words}", "Gbit/s", True, 1.5)
        yield Measure(f"bulk_{direction}_cpu", f"CPU of both proxies, {words}", "s/GB", False, 0.65)
    for size, words in (("small", "128 B"), ("64k", "64 KiB")):
        for count in CONNECTIONS:
            key, title = f"requests_{count}_{size}", f"{words} requests, {count} conn."
            is_promised = (count, size) == (32, "small")
            yield Measure(key, title, "req/s", True, 2.0 if is_promised else None)
            if count == 1:
                yield Measure(key + "_p50", "  latency p50", "µs", False)
                yield Measure(
                    key + "_added_p50", "  p50 added over direct", "µs", False,
                    0.5 if size == "small" else None)
                yield Measure(key + "_p99", "  latency p99", "µs", False)
                yield Measure(key + "_added_p99", "  p99 added over direct", "µs", False)
            yield Measure(
                key + "_cpu", "  CPU of both proxies", "µs/req", False,
                0.4 if is_promised else None)
    yield Measure("connections", "new connections", "conn/s", True, 1.3)
    yield Measure("connections_cpu", "  CPU of both proxies", "ms/conn", False)
    for side in SIDES:
        yield Measure(f"resident_{side}", f"resident, idle, {side}", "MB", False, 0.2, 13)
        yield Measure(f"anonymous_{side}", "  of which anonymous", "MB", False, None, 3)
    for side in SIDES:
        yield Measure(f"idle_{side}", f"per idle connection, {side}", "KB", False, 0.1, 2.5)
    for side in SIDES:
        yield Measure(f"after_{side}", f"resident once they are gone, {side}", "MB", False)


MEASURES = tuple(_measures())


class Cost:
    """Proxy CPU from its making to `seconds()`."""

    def __init__(self, contender):
        self._proxies = list(contender.proxies.values())
        self._before = self._now()

    def seconds(self):
        return self._now() - self._before

    def _now(self):
        return sum(cpu_seconds(proxy) for proxy in self._proxies)


def bulk(contender, workloads, options):
    workloads.start_bulk_server()
    workloads.bulk(WARM_UP_SECONDS, down=False)
    values = {}
    for direction in ("up", "down"):
        cost = Cost(contender)
        count, seconds = workloads.bulk(options.seconds, down=direction == "down")
        values[f"bulk_{direction}"] = count * 8 / seconds / 1e9
        if contender.has_proxies:
            values[f"bulk_{direction}_cpu"] = cost.seconds() / (count / 1e9)
    return values


def requests(contender, workloads, options):
    workloads.start_web_server()
    workloads.requests("/small", 8, WARM_UP_SECONDS)
    values = {}
    for size, path in SIZES.items():
        for count in CONNECTIONS:
            key = f"requests_{count}_{size}"
            cost = Cost(contender)
            report = workloads.requests(path, count, options.seconds)
            values[key] = report["requests"] / (report["microseconds"] / 1e6)
            if contender.has_proxies:
                values[f"{key}_cpu"] = cost.seconds() / report["requests"] * 1e6
            if count == 1:
                values |= {f"{key}_p50": report["p50"], f"{key}_p99": report["p99"]}
    return values


def connections(contender, workloads, options):
    workloads.start_web_server()
    workloads.requests("/small", 8, WARM_UP_SECONDS, new_connections=True)
    cost = Cost(contender)
    report = workloads.requests(
        "/small", NEW_CONNECTIONS_IN_PARALLEL, options.seconds, new_connections=True)
    values = {"connections": report["requests"] / (report["microseconds"] / 1e6)}
    if contender.has_proxies:
        values["connections_cpu"] = cost.seconds() / report["requests"] * 1e3
    return values


def memory(contender, workloads, options):
    """Idle before the first connection; what idle connections add to a proxy that has worked; what
    remains of it."""
    workloads.start_web_server()
    time.sleep(SETTLE_SECONDS)
    values = {}
    for side, proxy in contender.proxies.items():
        resident, anonymous = memory_bytes(proxy)
        values |= {f"resident_{side}": resident / 1e6, f"anonymous_{side}": anonymous / 1e6}
    workloads.requests("/small", 32, WARM_UP_SECONDS)
    descriptors = _wait_for_quiet(contender)
    worked = {side: memory_bytes(proxy)[0] for side, proxy in contender.proxies.items()}
    holder = workloads.hold_connections(options.idle_connections)
    time.sleep(SETTLE_SECONDS)
    for side, proxy in contender.proxies.items():
        grown = memory_bytes(proxy)[0] - worked[side]
        values[f"idle_{side}"] = grown / options.idle_connections / 1e3
    holder.tell("close")
    _wait_for_quiet(contender, descriptors)
    for side, proxy in contender.proxies.items():
        values[f"after_{side}"] = memory_bytes(proxy)[0] / 1e6
    return values


def _wait_for_quiet(contender, expected=None):
    """Until the proxies hold the descriptors expected, or any number that stays the same."""
    def count():
        return {side: descriptor_count(proxy) for side, proxy in contender.proxies.items()}

    def is_quiet():
        before = count()
        time.sleep(SETTLE_SECONDS)
        return count() == before and (
            expected is None or all(before[side] <= expected[side] for side in before))

    wait_until("the proxies have closed their connections", is_quiet, timeout=30)
    return count()


GROUPS = {
    "bulk": bulk, "requests": requests, "connections": connections, "memory": memory,
}
