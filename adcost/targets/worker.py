"""The process in which programs are compiled for a target.

It was started with what the target needs in its environment (``adcost.targets.elsewhere``). A line of JSON on standard
input asks for an exported program, a line of JSON on standard output says what its compiler plans, or why it does not.
"""

import json
import os
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import jax
from jax import export

from adcost import _jax
from adcost.targets import named
from adcost.targets.compiling import compiled_and_planned, lower_flat


def main(target: str) -> None:
    """Answer until there is nothing more to read, or whoever asked is gone."""
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints must not get between the replies
    jax.config.update("jax_enable_x64", True)  # the program's types are its own
    for line in sys.stdin:
        try:
            reply = answer(target, **json.loads(line))
        except Exception as error:  # whatever a compiler raises is its answer
            reply = {"error": _jax.first_line(error)}
        print(json.dumps(reply), file=replies)


def _end_with(parent: int) -> None:
    """End this process, whatever it compiles, once its parent has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def answer(target: str, program: str, donated: list[int]) -> dict[str, Any]:
    """What the compiler plans for the program in a file."""
    exported = export.deserialize(bytearray(Path(program).read_bytes()))
    Path(program).unlink()
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
    lowered = lower_flat(exported.call, shapes, donated, named(target))
    return compiled_and_planned(lowered, named(target))._asdict()
