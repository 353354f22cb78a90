"""The ruler ``compiler``: what XLA's buffer assignment says a program will take, before it runs and where it cannot.

``peak_memory_in_bytes`` is taken for a TPU alone, where it knows of padding and of what lies outside the main memory;
on a CPU it is blind to loop bodies.
"""

import time
from functools import cache
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.cases import Number, Program
from benchmarks.targets import Target


def compile_program(program: Program, target: Target) -> tuple[Any, list[Number]]:
    """Compile a program for a target; its planned memory in bytes and the seconds that compilation took."""
    # A function of its own: of one that it has seen before JAX returns the executable that it has, which takes no time.
    lowered = jax.jit(lambda *inputs: program.run(*inputs)).lower(*shapes(program, target))
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    planned = plan(compiled, target)
    if target.memory is not None:
        planned["device memory"] = target.memory
    numbers = [Number("compiler", target.name, quantity, "B", float(value)) for quantity, value in planned.items()]
    return compiled, [*numbers, Number("compile", target.name, "compile time", "s", seconds)]


def plan(compiled: Any, target: Target) -> dict[str, int]:
    """Planned bytes by purpose; ``total`` is what must fit into the device's memory."""
    analysis = compiled.memory_analysis()
    planned = {
        "temp": analysis.temp_size_in_bytes,
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "alias": analysis.alias_size_in_bytes,
    }
    if analysis.host_temp_size_in_bytes:  # what a policy moves to the host's memory
        planned["host"] = analysis.host_temp_size_in_bytes
    if target.platform == "tpu":
        planned["peak"] = analysis.peak_memory_in_bytes
        return {**planned, "total": planned["peak"]}
    held = planned["temp"] + planned["arguments"] + planned["outputs"] - planned["alias"]
    return {**planned, "total": held}


def shapes(program: Program, target: Target | None = None) -> tuple[Any, ...]:
    """The program's inputs as shapes and dtypes, on the target's device where that is not attached."""
    inputs = program.shapes() if program.shapes is not None else program.inputs()
    sharding = None if target is None or target.attached else SingleDeviceSharding(_device(target))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tuple(inputs))


@cache
def _device(target: Target) -> Any:
    if target.platform == "tpu":
        return topologies.get_topology_desc(target.topology, platform="tpu").devices[0]
    options = {"target_config": target.description, "topology": target.topology}
    return topologies.get_topology_desc(platform=target.platform, **options).devices[0]
