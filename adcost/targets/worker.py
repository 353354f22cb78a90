"""The process in which programs are compiled for a target.

It was started with what the target needs in its environment (``adcost.targets.elsewhere``). A line of JSON on standard
input asks for an exported program, a line of JSON on standard output says what its compiler plans, or why it does not.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import jax
from jax import export
from jax.sharding import AbstractMesh, AxisType

from adcost import _jax
from adcost.targets import named
from adcost.targets.compiling import compiled_and_planned, lower_flat, mesh_on


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


def answer(
    target: str, program: str, donated: list[int], axes: Sequence[tuple[str, int, str]] | None
) -> dict[str, Any]:
    """What the compiler plans for the program in a file, which may be sharded over a mesh: names, sizes, types."""
    exported = export.deserialize(bytearray(Path(program).read_bytes()))
    Path(program).unlink()
    chosen = named(target)
    shardings: Sequence[Any] = [None] * len(exported.in_avals)
    if axes is not None:
        names, sizes, kinds = zip(*axes, strict=True)
        mesh = AbstractMesh(sizes, names, axis_types=tuple(AxisType[kind] for kind in kinds))
        shardings = exported.in_shardings_jax(mesh_on(mesh, chosen))
    pairs = zip(exported.in_avals, shardings, strict=True)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a, sharding in pairs]
    return compiled_and_planned(lower_flat(exported.call, shapes, donated, chosen), chosen)._asdict()
