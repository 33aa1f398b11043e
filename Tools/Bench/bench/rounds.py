"""Rounds of turns: every contender in every round, in rotating order."""
from .machine import Disturbance
from .measures import GROUPS, MEASURES
from .topology import Topology
from .workloads import Workloads


# Of the machine, used by others during a turn. Our own leave a few percent unaccounted.
NOISY_SHARE = 0.1
# The key of what others used of the machine in a group's turn.
DISTURBANCE = "disturbance_"


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
                if contender.groups is not None and group not in contender.groups:
                    continue
                taken, others = calmest_turn(contender, group, options)
                values[contender.name] |= taken | {DISTURBANCE + group: others}
                progress(f"round {number + 1}/{options.rounds}  {group:<11} {contender.name:<12} "
                         f"others {others:4.0%}  {_summary(taken)}")
        _add_latencies(values)
        rounds.append(values)
    return rounds


def worst_disturbance(rounds):
    return max(
        share for values in rounds for taken in values.values() for key, share in taken.items()
        if key.startswith(DISTURBANCE))


def calmest_turn(contender, group, options):
    """(figures, disturbance): the first turn that nobody disturbed, or the least disturbed of as
    many as allowed. What the figures say has no part in the choice."""
    turns = []
    while not turns or (turns[-1][1] > NOISY_SHARE and len(turns) <= options.retakes):
        disturbance = Disturbance()
        taken = take_turn(contender, group, options)
        turns.append((taken, disturbance.share()))
    return min(turns, key=lambda turn: turn[1])


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
