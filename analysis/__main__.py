"""``python -m analysis RESULTS... -o DIR``: verdicts and the report from results of either front door."""

import argparse
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # schedules and traces are drawn from programs; no device has a part in it

from analysis import frame, report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="pytest-benchmark JSON files, asv results folders")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/report"), help="folder for the report")
    options = parser.parse_args(arguments)
    try:
        results = frame.read(options.results)
    except ValueError as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    for line in report.write(results, options.output):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
