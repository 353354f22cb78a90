"""The questions and the doors: studies, and how pytest-benchmark and asv reach them. Run from the checkout."""

import os
from functools import cache
from pathlib import Path

from adcost.suite import registry
from adcost.suite.vocabulary import Study

ROOT = Path(__file__).parents[1]


def study_folders() -> list[Path]:
    """This suite's folder of studies, and those that the environment variable ``STUDIES_PATH`` names."""
    return [
        ROOT / "benchmarks" / "studies",
        *map(Path, filter(None, os.environ.get("STUDIES_PATH", "").split(os.pathsep))),
    ]


LEFT_OUT: list[str] = []  # studies that fail, a line each, once all are loaded


@cache
def all_studies() -> dict[str, Study]:
    """All studies by name."""
    return registry.load(*study_folders(), say=LEFT_OUT.append)
