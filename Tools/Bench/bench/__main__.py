import json
import os
import resource
import sys
import tempfile

from . import arguments
from .check import prove
from .contenders import Setup
from .hotspots import profile
from .identities import Identities
from .machine import BenchError, environment
from .picture import picture
from .report import document, table
from .rounds import NOISY_SHARE, run_rounds, worst_disturbance
from .topology import interruptible, remove_leftovers


def say(line=""):
    print(line, flush=True)


def main():
    options = arguments.parse()
    _raise_descriptor_limit(options)
    remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=f"culvert-bench-{os.getpid()}-") as directory:
        os.chmod(directory, 0o755)
        setup = Setup(
            options.programs, options.envoy,
            Identities(os.path.join(options.programs, "culvert"), directory))
        contenders, culverts = arguments.contenders(options, setup)
        if options.profile:
            for contender in contenders:
                say(f"\n=== {contender.name}")
                profile(contender, options.profile, options.seconds, say)
        else:
            _measure(contenders, culverts, options)


def _measure(contenders, culverts, options):
    around = environment()
    say(f"Linux {around['kernel']}, {around['processors']} × {around['processor']}, "
        f"TCP {around['congestion_control']}, load {around['load_before']}")
    given = {contender.name: contender.given() for contender in contenders}
    for name, facts in given.items():
        say(f"\n{name}")
        for key, value in facts.items():
            say(f"    {key:<14} {value}")
    say("\nIs it mutual TLS?")
    evidence = {}
    for contender in contenders:
        evidence[contender.name] = prove(contender)
        say(f"    {contender.name}: "
            + ", ".join(f"{key} {value}" for key, value in evidence[contender.name].items()))
    say()
    rounds = run_rounds(contenders, options, say)
    culverts = [name for name in culverts if name in rounds[0]]
    say()
    say("\n".join(table(rounds, culverts)))
    say("\nMedian (lowest … highest) of the rounds; ratios are medians of the rounds' own ratios.")
    worst = worst_disturbance(rounds)
    if worst > NOISY_SHARE:
        say(f"Others used up to {worst:.0%} of the machine in a turn: these figures are noisy.")
    chosen = {
        "rounds": options.rounds, "seconds": options.seconds, "groups": options.groups,
        "retakes": options.retakes,
        "idle_connections": options.idle_connections}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                document(rounds, culverts, around, chosen, given, evidence), file, indent=2,
                ensure_ascii=False)
            file.write("\n")
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(picture(rounds, around, chosen))


def _raise_descriptor_limit(options):
    """For the proxies, the applications and the load generators alike. A proxy needs two for each
    connection, and some for itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = (hard - 500) // 2
    if options.idle_connections > most:
        say(f"--idle-connections {options.idle_connections}: the descriptor limit of {hard} allows "
            f"{most}")
        options.idle_connections = most


try:
    with interruptible():
        main()
except BenchError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
