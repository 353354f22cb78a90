"""Compiling for a target, and what its compiler plans."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import AbstractMesh, Mesh, NamedSharding, SingleDeviceSharding

from adcost import _jax
from adcost.targets import Target, named
from adcost.targets.alive import Told, told
from adcost.targets.collectives import Communication, communication


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
    return trace_for(f, *args, target=target).lower(lowering_platforms=(target.platform,))


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


def lower_flat(
    run: Callable[..., Any], shapes: Sequence[Any], donated: Sequence[int], target: Target, results: Sequence[Any] = ()
) -> Any:
    """Lower a function of flat arguments, some of them donated, for a target that this process can compile for.

    ``results`` are the shardings that are asked of its results; None leaves one to the compiler.
    """
    _require(target)
    given = placed(tuple(shapes), target)
    asked = [sharding and _on(sharding, target) for sharding in results] if any(results) else None
    with _jax.whole_call_paths(), _jax.in_mesh(mesh_of(shapes)):
        traced = jax.jit(run, donate_argnums=tuple(donated), out_shardings=asked).trace(*given)
        return traced.lower(lowering_platforms=(target.platform,))  # of an Explicit mesh JAX would ask for "gpu"


def compiles_here(target: Target) -> bool:
    """Can this process compile for a target?"""
    try:
        _require(target)
    except RuntimeError:
        return False
    return True


class Planned(NamedTuple):
    """What a compiler plans: bytes by purpose, as ``planned_bytes`` has them and ``constants``, and what it told.

    Of a program on several devices also what these do and say to each other.
    """

    sizes: dict[str, int]
    told: Told
    communication: Communication | None = None


FULL = 2**13  # bytes that are left on a disk that is full


def compiled_and_planned(lowered: Any, target: Target) -> Planned:
    """Compile a lowered program for a target, for the sake of its plan."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options=reporting_to(folder))
        if shutil.disk_usage(folder).free < FULL:  # XLA does not say that its reports were cut short
            raise OSError(errno.ENOSPC, f"no room for the compiler's reports: {os.strerror(errno.ENOSPC)}", folder)
        found = told(Path(folder))
    said = communication(compiled.as_text(), target.devices) if target.devices > 1 else None
    return Planned({**planned_bytes(compiled, target), "constants": found.constants}, found, said)


def reporting_to(folder: str) -> dict[str, str]:
    """Options of one compilation whose reports ``told`` reads.

    An executable that was compiled so writes reports again whenever it is loaded: it must not be saved.
    """
    return {"xla_dump_to": folder}


CALLBACKS = frozenset(("debug_callback", "debug_print", "pure_callback", "io_callback"))


def placed(tree: Any, target: Target | None = None) -> Any:
    """Shapes and dtypes of a pytree's arrays, as they lie on the devices of a target; other leaves stay.

    Of what is not sharded JAX decides where it lies; on one device that is not attached it is told.
    """
    sharded = any(map(sharding_of, jax.tree.leaves(tree)))
    alone = target is not None and not target.attached and not sharded

    def leaf(a: Any) -> Any:
        if not hasattr(a, "shape"):
            return a
        sharding: Any = sharding_of(a)
        if target is not None:
            sharding = SingleDeviceSharding(_devices(target)[0]) if alone else sharding and _on(sharding, target)
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)


def sharding_of(leaf: Any) -> NamedSharding | None:
    """How an array or its shape is sharded over a mesh, whose devices are left out; None if it is not.

    Raises
    ------
    ValueError
        If it lies on several devices by another sharding than a named one.
    """
    found = getattr(leaf, "sharding", None)
    if isinstance(found, NamedSharding):
        return NamedSharding(_jax.axes_alone(found.mesh), found.spec, memory_kind=found.memory_kind)
    devices = len(getattr(found, "device_set", ()))
    if devices > 1:
        raise ValueError(f"an argument lies on {devices} devices by a {type(found).__name__}: give a NamedSharding")
    return None


def mesh_of(leaves: Sequence[Any]) -> AbstractMesh | None:
    """The mesh over which arrays are sharded; None if none is.

    Raises
    ------
    ValueError
        If there are several.
    """
    meshes = {_jax.axes_alone(found.mesh) for leaf in leaves if (found := sharding_of(leaf)) is not None}
    if len(meshes) > 1:
        said = " and ".join(sorted(", ".join(f"{name} {size}" for name, size in mesh.shape.items()) for mesh in meshes))
        raise ValueError(f"the arguments are sharded over several meshes, {said}: give them all on one")
    return next(iter(meshes), None)


def check_devices(mesh: AbstractMesh | None, target: Target) -> None:
    """Refuse a program that is for another number of devices than a target has.

    Raises
    ------
    ValueError
        If it is.
    """
    if mesh is None and target.devices > 1:
        raise ValueError(
            f"no argument is sharded over the {target.devices} devices of {target.name}: give them a NamedSharding on "
            f"adcost.mesh({target.name!r}, data={target.devices})"
        )
    if mesh is not None and mesh.size != target.devices:
        raise ValueError(f"the arguments are sharded over {mesh.size} devices, {target.name} has {target.devices}")


def _on(sharding: NamedSharding, target: Target) -> NamedSharding:
    """A sharding on the devices of a target."""
    return NamedSharding(mesh_on(sharding.mesh, target), sharding.spec, memory_kind=sharding.memory_kind)


@cache
def mesh_on(mesh: AbstractMesh, target: Target) -> Mesh:
    """A mesh of a target's devices."""
    devices = _devices(target)[: target.devices]
    if target.platform == "tpu":  # neighbours in the mesh are neighbours in the torus
        arranged = mesh_utils.create_device_mesh(mesh.axis_sizes, devices, allow_split_physical_axes=True)
    else:
        arranged = np.array(devices).reshape(mesh.axis_sizes)
    return Mesh(arranged, mesh.axis_names, axis_types=mesh.axis_types)


def mesh(target: str | Target, **axes: int) -> AbstractMesh:
    """The mesh of a cluster that need not be here, for the shardings of ``jax.ShapeDtypeStruct``.

    Parameters
    ----------
    target
        The cluster, as ``"nvidia-h100:8x32"``.
    **axes
        Names and sizes, the last one between neighbours: ``data=32, model=8``.

    Returns
    -------
    jax.sharding.AbstractMesh
        Its axes are of JAX's type Auto: the compiler's partitioner decides what the program leaves open.

    Raises
    ------
    ValueError
        If the axes do not take all devices.
    """
    chosen = named(target)
    sizes = tuple(axes.values())
    if not axes or any(size < 1 for size in sizes) or prod(sizes) != chosen.devices:
        said = " x ".join(f"{name} {size}" for name, size in axes.items()) or "no axis"
        raise ValueError(f"{said} is no mesh of {chosen.name}: the sizes must multiply to {chosen.devices}")
    return AbstractMesh(sizes, tuple(axes), axis_types=(jax.sharding.AxisType.Auto,) * len(sizes))


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
        if jax.device_count() < target.devices:
            how = "set JAX_NUM_CPU_DEVICES" if backend == "cpu" else "attach more"
            raise RuntimeError(f"JAX has {jax.device_count()} devices in this process, {target.name} is more: {how}")
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
def _devices(target: Target) -> Sequence[Any]:
    """The devices of a target that is attached, or as its compiler knows them."""
    if target.attached:
        return jax.devices()
    return topologies.get_topology_desc(platform=target.platform, **target.topology).devices
