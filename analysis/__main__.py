"""``python -m analysis RESULTS... -o DIR``: verdicts and the report from results of either front door."""

import argparse
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # schedules and traces are drawn from programs; no device has a part in it

from adcost.whole import print_anything
from analysis import frame, report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="pytest-benchmark JSON files, asv results folders")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/report"), help="folder for the report")
    options = parser.parse_args(arguments)
    print_anything()
    try:
        results = frame.read(options.results)
    except ValueError as error:
        return _failed(error)
    try:
        for line in report.write(results, options.output):
            print(line, flush=True)
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    print(f"analysis: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
