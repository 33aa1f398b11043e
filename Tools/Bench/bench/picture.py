"""The bar chart: an SVG file on its own white card, readable on any page."""
from html import escape

from .measures import MEASURES
from .report import number, summarize

# (measure, heading, unit)
PANELS = (
    ("bulk_up", "Bulk, client to server", "Gbit/s"),
    ("bulk_down", "Bulk, server to client", "Gbit/s"),
    ("bulk_up_cpu", "CPU for a gigabyte, both proxies", "seconds"),
    ("requests_32_small", "Keep-alive requests, 32 connections", "requests/s"),
    ("requests_32_small_cpu", "CPU for a request, both proxies", "µs"),
    ("requests_1_small_added_p50", "Latency added at p50, 1 connection", "µs"),
    ("connections", "New connections, full handshakes", "connections/s"),
    ("resident_client", "Resident memory of an idle proxy", "MB"),
    ("idle_client", "Memory for an idle mTLS connection", "KB"),
)
COLOURS = {"culvert": "#0b7285", "direct": "#adb5bd"}
OTHER_COLOUR = "#868e96"
VARIANT_COLOUR = "#66a8b5"
INK, QUIET, FAINT, CARD = "#212529", "#5c636a", "#dee2e6", "#ffffff"

COLUMNS = 3
PANEL_WIDTH, LABEL_WIDTH, VALUE_WIDTH = 330, 70, 50
BAR_HEIGHT, BAR_GAP, HEADING_HEIGHT, AXIS_HEIGHT = 16, 8, 44, 34
MARGIN, TITLE_HEIGHT, FOOT_HEIGHT = 24, 64, 30


def picture(rounds, environment, options):
    """The text of an SVG file."""
    summary = summarize(rounds)
    more_is_better = {measure.key: measure.more_is_better for measure in MEASURES}
    panels = [panel for panel in PANELS if panel[0] in summary]
    tallest = max(len(summary[key]) for key, _, _ in panels)
    panel_height = HEADING_HEIGHT + tallest * (BAR_HEIGHT + BAR_GAP) + AXIS_HEIGHT
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH
    height = TITLE_HEIGHT + -(-len(panels) // COLUMNS) * panel_height + FOOT_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" '
        f'fill="{INK}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{CARD}" stroke="{FAINT}"/>',
        _text(MARGIN, 30, "Mutual TLS between two namespaces, one worker per proxy", size=18,
              weight=600),
        _text(MARGIN, 50, _conditions(environment, options), colour=QUIET),
    ]
    for index, (key, heading, unit) in enumerate(panels):
        x = MARGIN + index % COLUMNS * PANEL_WIDTH
        y = TITLE_HEIGHT + index // COLUMNS * panel_height
        better = "more is better" if more_is_better[key] else "less is better"
        parts += _panel(x, y, heading, unit, better, summary[key])
    parts.append(_text(
        MARGIN, height - 12, "Bars: median of the rounds; whiskers: lowest and highest. Details "
        "and what each was given: Docs/PERFORMANCE.md", colour=QUIET, size=11))
    return "\n".join(parts + ["</svg>"]) + "\n"


def _conditions(environment, options):
    return (f"Linux {environment['kernel'].partition('-')[0]}, {environment['processors']} CPUs, "
            f"TLS 1.3 AES-128-GCM, P-256 certificates, both ends verified; "
            f"{options['rounds']} round{'s' if options['rounds'] > 1 else ''} of "
            f"{options['seconds']} s")


def _panel(x, y, heading, unit, better, values):
    left, length = x + LABEL_WIDTH, PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH - 16
    top, bottom = y + HEADING_HEIGHT, y + HEADING_HEIGHT + len(values) * (BAR_HEIGHT + BAR_GAP)
    step, count = _ticks(max(taken["highest"] for taken in values.values()))
    scale = length / (step * count)
    parts = [
        _text(x, y + 16, heading, size=13, weight=600),
        _text(x, y + 32, f"{unit}, {better}", colour=QUIET, size=11),
    ]
    for tick in range(count + 1):
        at = left + tick * step * scale
        parts.append(
            f'<line x1="{at:.1f}" y1="{top - 2}" x2="{at:.1f}" y2="{bottom}" stroke="{FAINT}"/>')
        parts.append(_text(
            at, bottom + 13, _tick_label(tick * step), anchor="middle", colour=QUIET,
            size=10))
    for index, (name, taken) in enumerate(values.items()):
        parts += _bar(x, left, top + index * (BAR_HEIGHT + BAR_GAP), scale, name, taken)
    return parts


def _bar(x, left, y, scale, name, taken):
    middle = y + BAR_HEIGHT / 2
    colour = COLOURS.get(name, VARIANT_COLOUR if name.startswith("culvert") else OTHER_COLOUR)
    lowest, end, highest = (
        left + max(taken[key], 0) * scale for key in ("lowest", "median", "highest"))
    parts = [
        _text(left - 6, middle + 4, name, anchor="end",
              weight=600 if name.startswith("culvert") else 400),
        f'<rect x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="{BAR_HEIGHT}" rx="2" '
        f'fill="{colour}"/>',
        _text(max(end, highest) + 6, middle + 4, number(taken["median"])),
    ]
    if taken["lowest"] < taken["highest"]:
        parts.append(
            f'<path d="M{lowest:.1f} {middle}H{highest:.1f}M{lowest:.1f} {middle - 4}v8'
            f'M{highest:.1f} {middle - 4}v8" stroke="{INK}" fill="none"/>')
    return parts


def _ticks(highest):
    """(step, number of steps): round numbers, three to five of them."""
    step = 10.0 ** -9
    while True:
        for factor in (1, 2, 2.5, 5):
            if highest <= step * factor * 5:
                return step * factor, max(1, -int(-highest // (step * factor)))
        step *= 10


def _tick_label(value):
    return f"{value / 1000:g}k" if value >= 10_000 else f"{round(value, 6):g}"


def _text(x, y, words, anchor="start", colour=INK, size=12, weight=400):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-size="{size}" font-weight="{weight}">{escape(words)}</text>')
