"""What this machine can do at most: arithmetic, memory that was touched before, memory that was not.

The other studies' times are made of these three. A product of matrices shows the rate of arithmetic. Passing over one
buffer again and again shows the rate of memory that was touched; writing into a new buffer each time shows what fresh
pages cost: the kernel clears and maps each when it is first touched. glibc's allocator keeps what it is given back, but
for requests above a threshold, which grows to 32 MiB at most: these it maps anew each time (mallopt(3),
M_MMAP_THRESHOLD). The target ``cpu-nommap`` never does.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from adcost.suite.vocabulary import Case, Method, Program, Study, once_a_size

MIB = 2**20
PASSES = 4  # over a buffer, so that its first touch is a fifth of what is timed at most
LARGEST_PRODUCT = 16  # MiB of a factor: 2048 x 2048

Buffer = Float[Array, " n"]


def product(x: Buffer) -> Float[Array, "k k"]:
    """A product of two matrices that fill the buffer each."""
    square = x.reshape(order(x.size), -1)
    return square @ square


def touched(x: Buffer) -> Float[Array, ""]:
    """Read the buffer, ``PASSES`` times, and write nothing."""
    return lax.fori_loop(0, PASSES, lambda i, total: jnp.sum(x * (i + 1.0)) + 0.5 * total, jnp.zeros((), x.dtype))


def fresh(x: Buffer) -> Buffer:
    """Write a new buffer."""
    return x + 1


def kept(x: Buffer) -> Buffer:
    """Write a new buffer, and pass over it in place."""
    return lax.fori_loop(0, PASSES, lambda i, y: y * 0.5 + 1.0, x)


METHODS = {
    "product": Method(
        product,
        label="a product of matrices",
        differentiates=False,
        where=lambda case: case["mib"] in (1, 4, LARGEST_PRODUCT),
    ),
    "touched": Method(touched, label="memory that is read again", differentiates=False),
    "fresh": Method(fresh, label="memory that is new", differentiates=False),
    "kept": Method(kept, label="memory that is new, and written again", differentiates=False),
}
MOVED = {  # bytes moved, in buffers: read and written
    "product": 3,
    "touched": PASSES,
    "fresh": 2,
    "kept": 2 + 2 * PASSES,
}


def order(size: int) -> int:
    """The order of the square matrix that a buffer holds."""
    return round(size**0.5)


def program(case: Case) -> Program:
    """The case's pass; its facts are the bytes that it moves, and the flops of a product."""
    facts = {"moved": (float(MOVED[case.method] * case["mib"] * MIB), "B")}
    if case.method == "product":
        facts["arithmetic"] = (2.0 * order(case["mib"] * MIB // 4) ** 3, "flop")
    return Program(METHODS[case.method].build, partial(inputs, case), facts=facts)


@once_a_size
def inputs(case: Case) -> tuple[np.ndarray]:
    """A buffer of numbers between 0 and 1."""
    return (np.random.default_rng(0).random(case["mib"] * MIB // 4, dtype=np.float32),)


def reference(case: Case) -> Any:
    """The same in NumPy and float64."""
    (x,) = (a.astype(float) for a in inputs(case))
    if case.method == "product":
        square = x.reshape(order(x.size), -1)
        return square @ square
    if case.method == "fresh":
        return x + 1
    result = x if case.method == "kept" else 0.0
    for i in range(PASSES):
        result = result * 0.5 + 1.0 if case.method == "kept" else np.sum(x * (i + 1.0)) + 0.5 * result
    return result


STUDY = Study(
    name="machine",
    question="What can this machine do at most: arithmetic, memory that was touched before, fresh memory?",
    methods=METHODS,
    sizes={
        "quick": [{"mib": mib} for mib in (4, 16, 30, 34)],
        "full": [{"mib": mib} for mib in (1, 2, 4, 8, 16, 24, 30, 34, 40, 64, 128, 256)],
    },
    program=program,
    reference=reference,
    tolerance=lambda case: 1e-3,
    baselines=("fresh", "touched"),
    compared={"mib": ()},
)
