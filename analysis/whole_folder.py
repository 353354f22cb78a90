"""A folder of a report: it is whole, or it is not there, and what others put into it stays."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adcost.whole import reason
from benchmarks import all_studies

LIST = ".made-by-adcost"  # in each report, the names of its files: what may be replaced
BEFORE = {"index.html", "verdicts.json", "frame.csv", "summary.md"}  # of reports before adcost 0.8, which had no list


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write a report into, which takes the place of the old one when all is written.

    Raises
    ------
    OSError
        If the place holds what no report of ours made, or cannot be written; in one line, and what was there stays.
    """
    place = Path(os.path.realpath(folder))
    if str(folder) in ("", ".") or place == Path.cwd():
        raise OSError("name a folder for the report that is not the one you are in: its files are replaced")
    if place.is_mount():  # it cannot be renamed
        raise OSError(f"{folder} is a disk of its own: name a folder in it")
    theirs = _of_others(folder)
    new, old = (place.with_name(f".{place.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        names = sorted(str(path.relative_to(new)) for path in _files(new))
        (new / LIST).write_text("\n".join(names) + "\n", encoding="utf-8")
        for path in _files(new):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if place.exists():
            place.rename(old)
        new.rename(place)
        for path in theirs:
            _kept(old / path, place / path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if old.exists() and not place.exists():
            old.rename(place)
        raise OSError(f"the report in {folder} was not written: {reason(error)}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _of_others(folder: Path) -> list[Path]:
    """The files in a folder that no report made."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise OSError(f"{folder} is a file: name a folder for the report")
    held = [path.relative_to(folder) for path in _files(folder)]
    listed = folder / LIST
    if listed.is_file():
        ours = {LIST, *listed.read_text(encoding="utf-8", errors="replace").splitlines()}
        return [path for path in held if str(path) not in ours]
    theirs = [path for path in held if str(path) not in BEFORE and not _figure(path)]
    if held and not {str(path) for path in held} >= BEFORE - {"summary.md"}:
        raise OSError(f"{folder} holds what no report of adcost made ({held[0]}): name another folder")
    return theirs


def _figure(path: Path) -> bool:
    return path.parent.name == "figures" and any(path.name.startswith(f"{study}-") for study in all_studies())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _kept(theirs: Path, place: Path) -> None:
    """Put somebody's file into the new report, beside one of that name, if there is one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    theirs.rename(place if not place.exists() else place.with_name(f"{place.stem}.before{place.suffix}"))
