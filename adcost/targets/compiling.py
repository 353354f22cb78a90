"""Compiling for a target, and what its compiler plans."""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from adcost import _jax
from adcost.targets import Target, named
from adcost.targets.alive import Told, told


def compile_for(f: Callable[..., Any], *args: Any, target: str | Target = "cpu") -> Any:
    """Compile ``f(*args)`` for a device that need not be here; nothing runs.

    Parameters
    ----------
    f
        The program itself: pass ``jax.grad(loss)`` to compile a gradient. Compiled functions are taken as they are.
    *args
        Pytrees of arrays or ``jax.ShapeDtypeStruct``; and what a compiled function takes as static.
    target
        A name of ``adcost.TARGETS``, as ``"nvidia-h100"``.

    Returns
    -------
    jax.stages.Compiled
        The executable. ``planned_bytes`` says what it would take.

    Raises
    ------
    ValueError
        If the target is unknown, or the program calls back into Python and the target is not attached.
    RuntimeError
        If its compiler is not installed, or this process was not started with what it needs in its environment.
    """
    chosen = named(target)
    _require(chosen)
    return lower_for(f, *args, target=chosen).compile()


def lower_for(f: Callable[..., Any], *args: Any, target: Target) -> Any:
    """``f(*args)`` traced and lowered for a target, to be compiled."""
    return trace_for(f, *args, target=target).lower()


def trace_for(f: Callable[..., Any], *args: Any, target: Target) -> Any:
    """``f(*args)`` traced for a target, to be lowered."""
    jitted: Any = f if _jax.is_jitted(f) else jax.jit(f)  # one that is compiled keeps its donated arguments
    traced = jitted.trace(*placed(args, target))
    if not target.attached:
        called = {eqn.primitive.name for eqn in _jax.equations(traced.jaxpr.jaxpr)} & CALLBACKS
        if called:
            raise ValueError(
                f"{min(called)} calls back into Python, which needs {target.name} itself: plan it where one is"
            )
    return traced


def lower_flat(run: Callable[..., Any], shapes: Sequence[Any], donated: Sequence[int], target: Target) -> Any:
    """Lower a function of flat arguments, some of them donated, for a target that this process can compile for."""
    _require(target)
    with _jax.whole_call_paths():
        return jax.jit(run, donate_argnums=tuple(donated)).lower(*placed(tuple(shapes), target))


def compiles_here(target: Target) -> bool:
    """Can this process compile for a target?"""
    try:
        _require(target)
    except RuntimeError:
        return False
    return True


class Planned(NamedTuple):
    """What a compiler plans: bytes by purpose, as ``planned_bytes`` has them and ``constants``, and what it told."""

    sizes: dict[str, int]
    told: Told


def compiled_and_planned(lowered: Any, target: Target) -> Planned:
    """Compile a lowered program for a target, for the sake of its plan."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options=reporting_to(folder))
        found = told(Path(folder))
    return Planned({**planned_bytes(compiled, target), "constants": found.constants}, found)


def reporting_to(folder: str) -> dict[str, str]:
    """Options of one compilation whose reports ``told`` reads.

    An executable that was compiled so writes reports again whenever it is loaded: it must not be saved.
    """
    return {"xla_dump_to": folder}


CALLBACKS = frozenset(("debug_callback", "debug_print", "pure_callback", "io_callback"))


def placed(tree: Any, target: Target | None = None) -> Any:
    """Shapes and dtypes of a pytree's arrays, on the target's device where that is not attached; other leaves stay."""
    sharding = None if target is None or target.attached else SingleDeviceSharding(_device(target))

    def leaf(a: Any) -> Any:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) if hasattr(a, "shape") else a

    return jax.tree.map(leaf, tree)


def planned_bytes(compiled: Any, target: str | Target = "cpu") -> dict[str, int]:
    """What the compiler of a target plans for an executable, in bytes by purpose.

    Parameters
    ----------
    compiled
        What ``compile_for`` returned.
    target
        The target that it was compiled for.

    Returns
    -------
    dict
        ``temp``, ``arguments``, ``outputs``, ``alias`` (of outputs in the place of arguments), ``host`` if anything is
        moved to the host's memory, and ``total``: what must fit into the device's memory. On a TPU that is ``peak``,
        which knows of padding and of what lies outside the main memory (less what is on the host: XLA's figure has it
        in it); on a CPU XLA's figure of that name is blind to loop bodies (JAX 0.10.2), so the total is the sum.

    Raises
    ------
    ValueError
        If the target is unknown.
    """
    platform = named(target).platform
    analysis = compiled.memory_analysis()
    planned = {
        "temp": analysis.temp_size_in_bytes,
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "alias": analysis.alias_size_in_bytes,
    }
    if analysis.host_temp_size_in_bytes:  # what a policy moves to the host's memory
        planned["host"] = analysis.host_temp_size_in_bytes
    if platform == "tpu":
        planned["peak"] = analysis.peak_memory_in_bytes - analysis.host_temp_size_in_bytes
        return {**planned, "total": planned["peak"]}
    held = planned["temp"] + planned["arguments"] + planned["outputs"] - planned["alias"]
    return {**planned, "total": held}


BACKENDS = {"cpu": "cpu", "cuda": "gpu"}  # JAX's name for the platform of an attached target


def _require(target: Target) -> None:
    """Refuse what this process would compile for another device.

    The compiler of an absent device reads its settings when JAX starts: too late to set them here.
    """
    reason = target.unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    if target.attached:
        backend = jax.default_backend()
        if backend != BACKENDS[target.platform]:
            raise RuntimeError(f"JAX runs on {backend} in this process, not on {target.name}: set JAX_PLATFORMS")
        return
    absent = [f"{name}={value}" for name, value in target.environment.items() if value not in _setting(name)]
    if absent:
        raise RuntimeError(f"the compiler of {target.name} needs a process that was started with {' '.join(absent)}")


def _setting(name: str) -> str:
    """What is set in the environment; of what JAX reads when it is imported, what it read."""
    if name.startswith("JAX_"):
        return str(getattr(jax.config, name.lower()))
    return os.environ.get(name, "")


@cache
def _device(target: Target) -> Any:
    if target.platform == "tpu":
        return topologies.get_topology_desc(target.topology, platform="tpu").devices[0]
    options = {"target_config": target.description, "topology": target.topology}
    return topologies.get_topology_desc(platform=target.platform, **options).devices[0]
