"""Medians, spread and ratios; the table, and what goes into the JSON file."""
from statistics import median

from .contenders import YARDSTICK
from .measures import MEASURES


def summarize(rounds):
    """{measure: {contender: {median, lowest, highest, rounds}}}"""
    summary = {}
    for measure in MEASURES:
        by_contender = {}
        for name in rounds[0]:
            values = [values[name][measure.key] for values in rounds if measure.key in values[name]]
            if values:
                by_contender[name] = {
                    "median": median(values), "lowest": min(values), "highest": max(values),
                    "rounds": values}
        if by_contender:
            summary[measure.key] = by_contender
    return summary


def ratios(rounds, name, base=YARDSTICK):
    """{measure: {ratio, lowest, highest, target, reached}} to `base`: the median of the ratios of
    each round, so that a slow minute of the machine weighs on both alike."""
    found = {}
    for measure in MEASURES:
        pairs = [
            (values[name][measure.key], values[base][measure.key]) for values in rounds
            if measure.key in values.get(name, {}) and measure.key in values.get(base, {})]
        # What is added over direct can come out below zero in a noisy round.
        shares = [max(mine, 0) / its for mine, its in pairs if its > 0]
        if not shares:
            continue
        found[measure.key] = {
            "ratio": median(shares), "lowest": min(shares), "highest": max(shares),
            "target": measure.target, "limit": measure.limit,
            "reached": _is_reached(measure, median(shares), median(mine for mine, _ in pairs))}
    return found


def _is_reached(measure, ratio, value):
    """None where nothing is promised."""
    if measure.target is None and measure.limit is None:
        return None
    if measure.limit is not None and value > measure.limit:
        return False
    if measure.target is None:
        return True
    return ratio >= measure.target if measure.more_is_better else ratio <= measure.target


def number(value):
    """Three digits that mean something."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.1f}k"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def table(rounds, culverts):
    """Lines for a terminal: medians (lowest … highest), every Culvert's ratio to Envoy, and those
    of its variants to the first."""
    summary = summarize(rounds)
    names = list(rounds[0])
    pairs = [(name, YARDSTICK) for name in culverts] if YARDSTICK in names else []
    pairs += [(name, culverts[0]) for name in culverts[1:]]
    compared = {pair: ratios(rounds, *pair) for pair in pairs}
    rows = [["", "unit", *names, *(f"{name}/{base}" for name, base in pairs), "target", ""]]
    for measure in MEASURES:
        if measure.key not in summary:
            continue
        cells = [_cell(summary[measure.key].get(name)) for name in names]
        found = {pair: compared[pair].get(measure.key) for pair in pairs}
        rows.append(
            [measure.title, measure.unit, *cells]
            + [f"{ratio['ratio']:.2f}" if ratio else "" for ratio in found.values()]
            + [_target(measure),
               _verdict([ratio for (_, base), ratio in found.items() if base == YARDSTICK])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in rows]


def _cell(taken):
    if taken is None:
        return "-"
    if len(taken["rounds"]) == 1:
        return number(taken["median"])
    return (f"{number(taken['median'])} ({number(taken['lowest'])}…{number(taken['highest'])})")


def _target(measure):
    parts = []
    if measure.target is not None:
        parts.append(f"{'≥' if measure.more_is_better else '≤'} {measure.target} x")
    if measure.limit is not None:
        parts.append(f"≤ {measure.limit:g} {measure.unit}")
    return ", ".join(parts)


def _verdict(mine):
    return " ".join(
        {True: "reached", False: "MISSED"}[ratio["reached"]] for ratio in mine
        if ratio and ratio["reached"] is not None)


def document(rounds, culverts, environment, options, given, evidence):
    """All of a run, for the JSON file."""
    return {
        "environment": environment, "options": options, "given": given, "evidence": evidence,
        "measures": {
            measure.key: {
                "title": measure.title.strip(), "unit": measure.unit,
                "more_is_better": measure.more_is_better}
            for measure in MEASURES},
        "summary": summarize(rounds),
        "ratios_to_envoy": {name: ratios(rounds, name) for name in culverts},
        "rounds": rounds,
    }
