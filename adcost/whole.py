"""Files that are whole or not there, and output that never fails for want of a letter."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8 so that whoever looks, whenever, finds the old one or the new one whole.

    It is written beside its place, flushed to the disk, read back, and given its name.

    Raises
    ------
    OSError
        If that fails, in one line; what was there stays.
    """
    place = Path(os.path.realpath(path))  # what a link leads to: the link stays
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    content = text.encode("utf-8", "backslashreplace")
    try:
        if place.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if part.read_bytes() != content:
            raise OSError(0, "what was read back is not what was written")
        part.replace(place)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(f"{path} was not written: {reason(error)}") from error


def reason(error: OSError) -> str:
    """What a file is not read or written for, in words: without the number, and the file once."""
    return error.strerror or str(error) or type(error).__name__


def print_anything() -> None:
    """Let standard output and error take letters that their encoding lacks: of an ASCII locale, of a file's name."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
