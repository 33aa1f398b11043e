"""Rounds of turns: every contender in every round, in rotating order."""
from .machine import load
from .measures import GROUPS, MEASURES
from .topology import Topology
from .workloads import Workloads


def run_rounds(contenders, options, progress):
    """[{contender: {measure: value}}], one for each round."""
    rounds = []
    for number in range(options.rounds):
        values = {contender.name: {} for contender in contenders}
        for offset, group in enumerate(options.groups):
            first = (number + offset) % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                if group == "memory" and not contender.has_proxies:
                    continue
                taken = take_turn(contender, group, options)
                values[contender.name] |= taken
                progress(f"round {number + 1}/{options.rounds}  {group:<11} "
                         f"{contender.name:<12} load {load():4.1f}  {_summary(taken)}")
        _add_latencies(values)
        rounds.append(values)
    return rounds


def take_turn(contender, group, options):
    with Topology() as topology, contender.running(topology):
        return GROUPS[group](contender, Workloads(topology), options)


def _add_latencies(values):
    """Added latency is against direct in the same round."""
    direct = values.get("direct", {})
    for name, taken in values.items():
        if name == "direct":
            continue
        for key in list(taken):
            for point in ("_p50", "_p99"):
                if key.endswith(point) and key in direct:
                    added = f"{key.removesuffix(point)}_added{point}"
                    taken[added] = taken[key] - direct[key]


def _summary(taken):
    shown = [
        f"{taken[measure.key]:.4g} {measure.unit}" for measure in MEASURES
        if measure.key in taken and not measure.title.startswith("  ")]
    return ", ".join(shown)
