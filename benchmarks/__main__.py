"""Door 1 as ``make report`` goes through it: ``python -m benchmarks RESULT.json [options of pytest]``.

Ends with 0 when a complete result is in its file, also where cases failed: they stand in it with their reasons. The
status of pytest does not tell that, and Python's is 1 as well where it could not even begin. What a run has that ended
early is in ``RESULT.part.json``, and the result that was there stays. Without arguments it says whether all is there
that the environment asks for.
"""

import sys
from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.conftest import CAMPAIGN, NOT_SAVED, SAVED, check_asked


class _End:
    """Asks at the end whether there is a result, and why it is not complete."""

    saved = False
    ended = ""

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        self.saved = SAVED in config.stash
        self.ended = config.stash[CAMPAIGN].ended if CAMPAIGN in config.stash else ""


def main(result: str, *options: str) -> int:
    end, place = _End(), Path(result).absolute()
    part = place.with_suffix(".part.json")
    shown = ("-q", "--benchmark-columns=median,iqr,rounds")
    asked = [str(ROOT / "benchmarks"), "--benchmark-only", *shown, f"--benchmark-json={part}", *options]
    status = int(pytest.main(asked, plugins=[end]))
    if not end.saved:
        return status or NOT_SAVED
    if end.ended:
        said = f"{end.ended}; what was measured is in {part}, run again to go on from there"
        print(f"benchmarks: {said}", file=sys.stderr)
        return status or NOT_SAVED
    part.replace(place)
    return 0


def asked() -> int:
    """Is all there that the environment asks for? It names studies, a profile and targets."""
    try:
        check_asked()
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if sys.argv[1:] else asked())
