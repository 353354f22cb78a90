"""The command ``adcost``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adcost.targets import not_installed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors are one line, and end it with status 2."""
    parser = argparse.ArgumentParser(prog="adcost", description="What automatic differentiation costs in JAX.")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser(
        "measure",
        help="measure studies and write what was found as JSON",
        description="Measures the studies of folders: every file in one ends in STUDY = Study(...). A run that was cut "
        "short goes on where it was when the same command is given again.",
    )
    measure.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folder of studies")
    measure.add_argument("--study", default="all", help="names of studies, separated by commas (all)")
    measure.add_argument("--profile", default="quick", help="quick or full (quick)")
    measure.add_argument("--targets", default="cpu", help="names of targets, separated by commas (cpu)")
    measure.add_argument("--processes", type=int, help="in which programs are timed (those of the profile)")
    measure.add_argument("-o", "--output", type=Path, default=Path("adcost.json"), help="file (adcost.json)")
    options = parser.parse_args(arguments)
    absent = not_installed(("suite", "memory_profiler"))
    if absent is not None:
        print(f"adcost: {absent}", file=sys.stderr)
        return 2
    from adcost.suite.measure import measure_to_file

    try:
        for line in measure_to_file(
            options.folders, options.study, options.profile, options.targets, options.output, options.processes
        ):
            print(line)
    except (ValueError, OSError) as error:
        print(f"adcost: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
