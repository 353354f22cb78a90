"""One run at a time: two that measure at once disturb each other's times, and each would write over the other."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from adcost.whole import reason


class AnotherRuns(RuntimeError):
    """Another run holds the folder; the message names it, in one line."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder until the end; the system lets go of it when this process dies, however that happens.

    Raises
    ------
    AnotherRuns
        If a process that lives holds it.
    OSError
        If the folder cannot be written; in one line.
    """
    path = folder / ".running"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except BlockingIOError:
        other = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
        raise AnotherRuns(
            f"another run measures in {folder} ({other or 'it has not said which'}): wait for its end, or end it; "
            "two at once disturb each other"
        ) from None
    except OSError as error:
        raise OSError(f"{path} cannot be written: {reason(error)}") from None
    try:
        with suppress(OSError):  # a full disk has no room for the name
            os.write(file, f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _locked(path: Path) -> int:
    """The lock's file, open and locked; of a file system without locks, open."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise
        except OSError:
            return file
        if path.exists() and os.fstat(file).st_ino == path.stat().st_ino:  # not one that its run has just removed
            os.ftruncate(file, 0)
            return file
        os.close(file)
