"""What a program takes, here or on a device that is not here: ``plan``."""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from html import escape
from itertools import zip_longest
from math import inf, prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core
from jax.sharding import AbstractMesh, NamedSharding

from adcost import _jax
from adcost.checkpointing.rewriting import of_arrays
from adcost.checkpointing.values import is_array
from adcost.collectives import Collective, collectives_of, table
from adcost.display import in_words
from adcost.peak import Peak, in_the_program, peak_of
from adcost.rulers import count
from adcost.targets import Target, named
from adcost.targets.compiling import (
    CALLBACKS,
    Planned,
    check_devices,
    compiled_and_planned,
    compiles_here,
    lower_flat,
    mesh_of,
    sharding_of,
)
from adcost.targets.elsewhere import CompilerFailed, planned_elsewhere
from adcost.whole import write_whole

ROWS = 5  # of the peak that are printed with a plan
ASSUMED = 100  # trips of loops that only the data end, so that work can be compared


@dataclass(frozen=True)
class Plan:
    """What a program takes on a target, by its compiler. Sizes in bytes; of several devices those of each.

    Attributes
    ----------
    total
        What must fit into the memory of the device: ``temp + arguments + outputs - alias``; on a TPU its compiler's
        own figure, which knows of padding.
    temp, arguments, outputs, alias
        Intermediate values; arguments; results; results in the place of donated arguments.
    constants
        Arrays that the program itself holds, from 1 KiB on, where the compiler tells of them; not in the total.
    host
        What lies in the host's memory.
    memory
        What the program may take: the budget, otherwise the memory of the device. None if it is not known.
    flops
        Floating-point operations, counted in the program as it was written.
    caveats
        What makes ``flops`` a bound or an assumption, a line each.
    unseen
        What takes memory on the device and is not in the plan, a line each.
    peak
        What is alive at the peak, by the line of the source that made it; None where the compiler does not tell.
    jax
        The version of JAX that made it.
    mesh
        Of a program that is sharded over devices the axes of their mesh, with their sizes.
    collectives
        What each device says to the others, the most bytes sent first; None if nobody knows how often.
    device_flops
        Of one device of several: those of products, in the compiled program; None if they are not known.
    """

    target: str
    total: int
    temp: int
    arguments: int
    outputs: int
    alias: int
    host: int
    memory: int | None
    flops: int
    caveats: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    peak: Peak | None = field(default=None, repr=False, compare=False)
    constants: int = 0
    jax: str = jax.__version__
    mesh: Mapping[str, int] = field(default_factory=dict)
    collectives: tuple[Collective, ...] | None = ()
    device_flops: float | None = None

    @property
    def fits(self) -> bool | None:
        """Does it fit into the memory? None if that is not known."""
        return None if self.memory is None else self.total <= self.memory

    @property
    def devices(self) -> int:
        """Over how many devices is it sharded?"""
        return prod(self.mesh.values())

    @property
    def sent(self) -> int | None:
        """Bytes that each device sends to others; None if nobody knows how often."""
        return None if self.collectives is None else sum(one.sent for one in self.collectives)

    def json(self, peak: bool = True) -> dict[str, Any]:
        """All of it, with or without the peak, for a program to read."""
        said = None if self.collectives is None else [one.json() for one in self.collectives]
        told = {**vars(self), "fits": self.fits, "peak": None if self.peak is None else self.peak.json()}
        told |= {"collectives": said, "mesh": dict(self.mesh)}
        return told if peak else {name: value for name, value in told.items() if name != "peak"}

    def save(self, file: str | Path) -> None:
        """Write it to a file, for ``Plan.load`` and ``adcost.diff``.

        Raises
        ------
        OSError
            If it cannot be written, in one line; what was there stays.
        """
        write_whole(Path(file), json.dumps(self.json()) + "\n")

    @staticmethod
    def load(file: str | Path) -> "Plan":
        """A plan that was saved.

        Raises
        ------
        ValueError
            If the file is none.
        """
        try:
            told = json.loads(Path(file).read_text(encoding="utf-8"))
            told = {name: value for name, value in told.items() if name != "fits"}
            peak = None if told["peak"] is None else Peak.of_json(told["peak"], told["total"])
            said = told.get("collectives", ())
            told["collectives"] = None if said is None else tuple(map(Collective.of_json, said))
            return Plan(**{**told, "peak": peak, "caveats": tuple(told["caveats"]), "unseen": tuple(told["unseen"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ValueError(f"{file} is no saved plan: write one with Plan.save, or adcost plan --save") from None

    def said(self) -> list[str]:
        """The total, its parts, and what is not in it: a line each."""
        parts = {"arguments": self.arguments, "outputs": self.outputs, "temporary": self.temp}
        said = [f"{in_words(size)} {name}" for name, size in parts.items()]
        said += [f"less {in_words(self.alias)} in the place of arguments"] if self.alias else []
        verdict = {True: "fits into", False: "does not fit into", None: ""}[self.fits]
        room = "" if self.memory is None else f", {verdict} {in_words(self.memory)}"
        beside = [f"in the host's memory: {in_words(self.host)}"] if self.host else []
        beside += [f"beside it, constants in the program itself: {in_words(self.constants)}"] if self.constants else []
        each = " on each device" if self.mesh else ""
        lines = [f"{self.target}: {in_words(self.total)}{each}{room}", ", ".join(said), *beside, *self._work()]
        return [*lines, *self.caveats, *(f"not seen: {it}" for it in self.unseen)]

    def _work(self) -> list[str]:
        """Flops, and of several devices what each does and sends."""
        if not self.mesh:
            return [f"{self.flops:.4g} flops"]
        axes = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        done = "not known" if self.device_flops is None else f"{self.device_flops:.4g} in products"
        sent = "not known" if self.sent is None else in_words(self.sent)
        return [f"{self.flops:.4g} flops on {axes} devices; of each: {done}", f"sent by each device: {sent}"]

    def lines(self, most: int | None = None) -> str:
        """The same, what is alive at the peak, so many rows of it, and so many of what is sent."""
        said = [table(self.collectives, most)] if self.collectives else []
        return "\n\n".join(["\n".join(self.said()), *([] if self.peak is None else [self.peak.lines(most)]), *said])

    def __str__(self) -> str:
        return self.lines(ROWS)

    def _repr_html_(self) -> str:
        said = "".join(f"<p><code>{escape(line)}</code></p>" for line in self.said())
        sent = table(self.collectives, ROWS, html=True) if self.collectives else ""
        return said + ("" if self.peak is None else self.peak.html(ROWS)) + sent


def plan(
    f: Callable[..., Any], *args: Any, target: str | Target = "cpu", memory: int | float | str | None = None
) -> Plan:
    """What ``f(*args)`` takes on a target, by the target's compiler; nothing runs, and the device need not be here.

    Parameters
    ----------
    f
        The program itself: pass ``jax.grad(loss)`` for a gradient. A compiled function keeps its donated arguments.
    *args
        Arrays or ``jax.ShapeDtypeStruct`` in any pytrees; numbers, flags and functions of Python stay what they are. On
        several devices by a ``NamedSharding``, over ``adcost.mesh(target, ...)`` or any mesh of as many: the plan is
        then that of each device.
    target
        A name of ``adcost.TARGETS``, as ``"nvidia-h100"``, or a cluster, as ``"nvidia-h100:8x32"``. Whatever JAX runs
        on in this process: where it cannot compile for the target, another process does.
    memory
        What the program may take, in bytes or as ``"16 GiB"``; by default the memory of the target.

    Returns
    -------
    Plan
        Bytes by purpose, flops, and what the compiler cannot see.

    Raises
    ------
    ValueError
        If the target or the memory makes no sense, the arguments are sharded over another number of devices than the
        target has, or the program calls back into Python in an order.
    RuntimeError
        If the target's compiler is not installed, or refuses the program.
    """
    chosen = named(target)
    budget = memory_bytes(memory, chosen)
    return planned(traced(f, *args), chosen, budget)


class Traced(NamedTuple):
    """A program as it was traced: of flat arguments, each with its name, some of them donated.

    ``given`` and ``results`` are the shardings of arguments and results; None where the compiler decides.
    """

    closed: Any
    donated: tuple[int, ...]
    names: tuple[str, ...] = ()
    given: tuple[NamedSharding | None, ...] = ()
    results: tuple[NamedSharding | None, ...] = ()

    @property
    def shapes(self) -> list[jax.ShapeDtypeStruct]:
        """Those of the arguments, with their shardings."""
        pairs = zip_longest(self.closed.in_avals, self.given)
        return [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a, sharding in pairs]

    @property
    def mesh(self) -> AbstractMesh | None:
        """The mesh over which it is sharded, if it is."""
        return mesh_of(self.shapes)


def traced(f: Any, *args: Any) -> Traced:
    """``f(*args)`` as a program.

    Raises
    ------
    ValueError
        If arguments are sharded over several meshes, or otherwise than by a ``NamedSharding``.
    """
    leaves = jax.tree.leaves(args)
    given = tuple(sharding_of(leaf) for leaf in leaves if is_array(leaf))
    with _jax.in_mesh(mesh_of(leaves)):
        if _jax.is_jitted(f):
            return _traced_as_compiled(f, args, given)
        run, arrays = of_arrays(f, args, {})
        closed = _jax.without_devices(jax.make_jaxpr(run)(*arrays))
    return Traced(closed, (), named_leaves(f, args), given)


def _traced_as_compiled(f: Any, args: Sequence[Any], given: Sequence[NamedSharding | None]) -> Traced:
    """One that ``jax.jit`` has compiled keeps what it donates, and the shardings that it was told."""
    stage = f.trace(*args)
    infos = jax.tree.leaves(stage.args_info, is_leaf=lambda info: hasattr(info, "donated"))
    donated = tuple(i for i, info in enumerate(infos) if info.donated)
    closed = _jax.without_devices(stage.jaxpr)
    asked, results = _jax.asked_shardings(stage)
    if len(asked) == len(closed.in_avals):
        given = asked if len(given) != len(asked) else [a or b for a, b in zip(asked, given, strict=True)]
    return Traced(closed, donated, named_leaves(f, stage.args_info[0]), tuple(given), tuple(results))


def named_leaves(f: Any, args: Sequence[Any]) -> tuple[str, ...]:
    """The arrays in the arguments of a function as people write them: ``params['bias']``; by number where unnamed."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [*positional, *(f"args[{i}]" for i in range(len(positional), len(args)))]
    leaves = [found for arg in args for found in [jax.tree_util.tree_flatten_with_path(arg)[0]]]
    return tuple(
        f"{name}{jax.tree_util.keystr(path)}"
        for name, found in zip(names, leaves, strict=False)
        for path, leaf in found
        if hasattr(leaf, "donated") or is_array(leaf)
    )


def planned(program: Traced, target: Target, memory: int | None) -> Plan:
    """The plan of a program. It is compiled in this process if that can be, in another one otherwise."""
    mesh = program.mesh
    check_devices(mesh, target)
    lines = [in_the_program(path) for path in _jax.call_paths(program.closed.jaxpr)]
    program = _as_compiled(program)
    sizes, told, communication = _compiled(program, target, lines)
    names = {eqn.primitive.name for eqn in _jax.equations(program.closed.jaxpr)}
    unseen = tuple(said for primitives, said in UNSEEN[target.platform] if names & primitives)
    counted = counted_of(program)
    by_purpose: dict[str, Any] = {name: sizes.get(name, 0) for name in PURPOSES}
    return Plan(
        target=target.name,
        **by_purpose,
        memory=memory,
        flops=counted.flops,
        caveats=counted.caveats,
        unseen=unseen,
        peak=peak_of(told, sizes["total"], lines, program.names),
        mesh={} if mesh is None else dict(mesh.shape),
        collectives=collectives_of(communication, lines),
        device_flops=communication and communication.flops,
    )


PURPOSES = ("total", "temp", "arguments", "outputs", "alias", "host", "constants")


def counted_of(program: Traced) -> count.Count:
    """What a program does."""
    return count.count_jaxpr(_jax.live(program.closed), program.closed.consts, assumed=ASSUMED)


LAPACK = frozenset(
    "cholesky eig eigh geqrf geqp3 hessenberg householder_product lu ormqr qr schur svd symmetric_product "
    "tridiagonal tridiagonal_solve".split()
)
CALLED = (CALLBACKS, "what is called back in Python, what it gives, and what is moved there")
UNSEEN = {  # by platform: which primitives take memory while they run that no plan has
    "cpu": [
        (LAPACK, "the work space of LAPACK, which takes it while it runs"),
        (
            frozenset(("dot_general", "conv_general_dilated")),
            "what kernels of products and convolutions take while they run",
        ),
        CALLED,
    ],
    "cuda": [
        (LAPACK, "the work space of cuSOLVER, which takes it while it runs"),
        (frozenset(("conv_general_dilated",)), "the work space of cuDNN, whose algorithms are chosen on the device"),
        CALLED,
    ],
    "tpu": [CALLED],
}


def _compiled(program: Traced, target: Target, lines: Sequence[Any]) -> Planned:
    """What the compiler plans; it is asked once for equal programs of the same lines."""
    reason = target.unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    run, shapes = core.jaxpr_as_fun(program.closed), program.shapes
    try:
        if compiles_here(target):
            lowered = lower_flat(run, shapes, program.donated, target, program.results)
            return _once((target, lowered.as_text(), lines), lambda: _compiled_here(lowered, target))
        called = {e.primitive.name: e for e in _jax.equations(program.closed.jaxpr) if e.primitive.name in CALLBACKS}
        for name, eqn in called.items():
            if _jax.ordered_effects(eqn):
                raise ValueError(f"{_jax.line(eqn)}: {name} keeps an order, which needs {target.name} itself")
        with _jax.in_mesh(program.mesh):
            results = list(program.results) if any(program.results) else None
            exported = _jax.exported(run, shapes, results, target.platform, [eqn.primitive for eqn in called.values()])
        if exported.nr_devices != target.devices:
            raise ValueError(f"the program runs on {exported.nr_devices} devices, {target.name} has {target.devices}")
        whole = bytes(exported.serialize())
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, CompilerFailed):
            raise
        raise CompilerFailed(_jax.first_line(error)) from None
    asked = target, exported.mlir_module(), program.donated, lines
    try:
        return _once(asked, lambda: planned_elsewhere(whole, program.donated, target, program.mesh))
    except CompilerFailed as error:
        if not target.attached:
            raise
        raise CompilerFailed(f"JAX does not run on {target.name} here, nor in another process: {error}") from None


def _as_compiled(program: Traced) -> Traced:
    """Without the arguments that it does not use: a compiled program does not hold them."""
    closed, used = _jax.without_unused_inputs(program.closed)
    place = {old: new for new, old in enumerate(i for i, use in enumerate(used) if use)}
    donated = tuple(place[i] for i in program.donated if i in place)
    names = tuple(name for name, use in zip(program.names, used, strict=False) if use)
    given = tuple(sharding for sharding, use in zip(program.given, used, strict=False) if use)
    return Traced(closed, donated, names, given, program.results)


def _compiled_here(lowered: Any, target: Target) -> Planned:
    try:
        return compiled_and_planned(lowered, target)
    except jax.errors.JaxRuntimeError as error:
        raise CompilerFailed(_jax.first_line(error)) from None


_asked: dict[bytes, Future[Planned]] = {}  # what this process has asked of compilers; setting is atomic


def _once(program: tuple[Any, ...], ask: Callable[[], Planned]) -> Planned:
    """The answer for a program: the same to all who ask, also while it is being found."""
    key = hashlib.sha256(repr(program).encode()).digest()
    mine: Future[Planned] = Future()
    first = _asked.setdefault(key, mine)
    if first is mine:
        try:
            mine.set_result(ask())
        except BaseException as error:
            mine.set_exception(error)
            _asked.pop(key)  # it may be an interrupt, or a compiler that was killed
    return first.result()


# Memory, in bytes and in words.

UNITS = {"": 1, "b": 1}
UNITS |= {f"{letter}{tail}": 1000 ** (i + 1) for i, letter in enumerate("kmgt") for tail in ("", "b")}
UNITS |= {f"{letter}ib": 1024 ** (i + 1) for i, letter in enumerate("kmgt")}


def memory_bytes(memory: int | float | np.number | str | None, target: Target) -> int | None:
    """A memory in bytes, or as ``"16 GiB"``, ``"500 MB"``; None is that of the target, as far as it is known.

    Raises
    ------
    ValueError
        If it is no memory; in one line.
    """
    if memory is None:
        whole = _machine() if target.platform == "cpu" else None
        return target.memory or (whole and whole // target.devices)
    given = f"{float(memory)!r}" if isinstance(memory, int | float | np.number) else str(memory)
    found = re.fullmatch(r"\s*([\d.]+(?:e\+?\d+)?)\s*([a-z]*)\s*", given.lower())
    try:
        size = float(found[1]) * UNITS[found[2]] if found and not isinstance(memory, bool) else 0.0
    except (ValueError, KeyError):
        size = 0.0
    if not 1 <= size < inf:
        raise ValueError(f'memory={memory!r} is no memory: give bytes, or a number with a unit as "16 GiB" or "500 MB"')
    return int(size)


@cache
def _machine() -> int | None:
    """Bytes of memory that this machine gives to a process; less where a control group says so."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no Linux, no control group, or no limit in it
        pass
    return min(limits, default=None)
