"""The ruler ``compiler``: what XLA's buffer assignment says a program will take, before it runs.

``peak_memory_in_bytes`` is left alone: on a CPU it is blind to loop bodies.
"""

import time
from typing import Any

from benchmarks.cases import Number


def compile_program(lowered: Any, target: str) -> tuple[Any, list[Number]]:
    """Compile a lowered program; its planned memory in bytes and the seconds that compilation took."""
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    plan = compiled.memory_analysis()
    planned = {
        "temp": plan.temp_size_in_bytes,
        "arguments": plan.argument_size_in_bytes,
        "outputs": plan.output_size_in_bytes,
        "alias": plan.alias_size_in_bytes,
    }
    numbers = [Number("compiler", target, quantity, "B", float(value)) for quantity, value in planned.items()]
    return compiled, [*numbers, Number("compile", target, "compile time", "s", seconds)]
