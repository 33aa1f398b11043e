"""The command line."""
import argparse
import os

from .contenders import ALL, Culvert
from .hotspots import LOADS
from .machine import BenchError
from .measures import GROUPS

EXAMPLES = """\
examples:
  Scripts/bench                                       everything, about fifteen minutes
  Scripts/bench --quick                               one short round: does it work?
  Scripts/bench --only bulk,requests --contenders culvert,envoy,direct
  Scripts/bench --json run.json --svg run.svg
  Scripts/bench --culvert-yaml 'dataPlane: { kernelTLS: off }'
  Scripts/bench --also ktls='dataPlane: { kernelTLS: require }' --contenders culvert,culvert-ktls
  Scripts/bench --also before=/tmp/old/release --contenders culvert,culvert-before,envoy
  Scripts/bench --profile requests-32 --contenders culvert
"""


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="Scripts/bench", epilog=EXAMPLES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measures Culvert beside other proxies and beside none, doing the same work in "
                    "the same run, and shows medians, spread and the ratio to Envoy.")
    parser.add_argument("--rounds", type=_count, help="how often each is measured (default: 3)")
    parser.add_argument("--seconds", type=_count, help="how long for one figure (default: 5)")
    parser.add_argument(
        "--only", metavar="GROUPS", help=f"of {', '.join(GROUPS)} (default: all)")
    parser.add_argument(
        "--contenders", metavar="NAMES", help=f"of {', '.join(ALL)} and --also (default: all)")
    parser.add_argument(
        "--idle-connections", type=_count, default=1000, metavar="N",
        help="held open for the memory of an idle connection (default: 1000)")
    parser.add_argument(
        "--culvert-yaml", default="", metavar="YAML", help="added to Culvert's configuration")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=YAML|/DIRECTORY",
        help="a second Culvert, culvert-NAME: with this added to its configuration, or with the "
             "programs in a directory")
    parser.add_argument(
        "--retakes", type=int, default=0, metavar="N",
        help="repeat a turn in which others used more than a tenth of the machine, up to N times, "
             "and keep the calmest (default: 0)")
    parser.add_argument("--quick", action="store_true", help="1 round, 1 second")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--svg", metavar="FILE", help="write a bar chart")
    parser.add_argument(
        "--profile", choices=LOADS, help="instead of measuring: functions and system calls of the "
                                         "contenders' proxies under this load")
    parser.add_argument("--programs", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--envoy", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 5)
    options.groups = _chosen(options.only, list(GROUPS), "--only")
    return options


def contenders(options, setup):
    """In the order of the table."""
    available = {name: kind(setup) for name, kind in ALL.items() if kind is not Culvert}
    culverts = {Culvert.name: Culvert(setup, yaml=options.culvert_yaml)}
    for text in options.also:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise BenchError(f"--also {text}: expected NAME=YAML or NAME=/DIRECTORY")
        name = f"{Culvert.name}-{name}"
        is_directory = value.startswith("/")
        if is_directory and not os.path.exists(os.path.join(value, "culvert-proxy")):
            raise BenchError(f"--also {text}: there is no culvert-proxy in {value}")
        culverts[name] = Culvert(
            setup, name, programs=value if is_directory else None,
            yaml=options.culvert_yaml if is_directory else value)
    ordered = {"direct": available.pop("direct"), **culverts, **available}
    names = _chosen(options.contenders, list(ordered), "--contenders")
    return [contender for name, contender in ordered.items() if name in names], list(culverts)


def _chosen(text, available, option):
    if text is None:
        return available
    chosen = text.split(",")
    for name in chosen:
        if name not in available:
            raise BenchError(f"{option}: no such one: {name!r} (there are {', '.join(available)})")
    return [name for name in available if name in chosen]


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value
