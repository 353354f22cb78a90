"""The field's programs with loops, none of which knows adcost: right gradients, and the memory that is enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adcost
from adcost.checkpointing import binomial
from tests.field import bodies, loops
from tests.field.case import PLAIN

CASES = [case for case in (*loops.MEMORY, *bodies.CASES) if "refused" not in case.right]
ROUNDED = 1.02  # the bounds are given with two digits
TIGHTER = {  # what is asked for takes more than two evaluations a step
    "each row reads all rows before": lambda n: binomial(n, 6),
    "a loop inside cond": lambda n: binomial(n, 20),
}
NOT_YET = {
    "a loop inside custom_vjp": "its rule is traced by JAX when it is differentiated",
}


def program(case):
    """The program and its arguments that are arrays; a module's other leaves stay."""
    for name in case.needs:
        pytest.importorskip(name)
    f, arguments = case.make()
    leaves, tree = jax.tree.flatten(arguments)
    kept = [isinstance(leaf, (float, jax.Array, np.ndarray)) for leaf in leaves]

    def of_arrays(f):
        def run(*some):
            given = iter(some)
            return f(*jax.tree.unflatten(tree, [next(given) if k else v for v, k in zip(leaves, kept, strict=True)]))

        return run

    first = len(jax.tree.leaves(arguments[0]))
    by = tuple(range(sum(kept[:first])))
    return f, of_arrays, by, [jnp.asarray(v) for v, k in zip(leaves, kept, strict=True) if k]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_gradient_is_right_and_fits(case):
    with jax.enable_x64(False):
        f, of_arrays, by, arrays = program(case)
        mine = adcost.checkpointed(f, TIGHTER.get(case.name))
        compiled = jax.jit(jax.grad(of_arrays(mine), by)).lower(*arrays).compile()
        planned = compiled.memory_analysis().temp_size_in_bytes / 2**20
        most = case.right.get("temp_at_most_mib")
        if case.name in NOT_YET:
            assert planned > most, "it fits now: take it off the list"
            assert mine.loops(*case.make()[1]), "it is listed"
        elif most is not None:
            assert planned <= ROUNDED * most
        if case.right.get("gradient") is not PLAIN:
            return
        expected = jax.jit(jax.grad(of_arrays(f), by))(*arrays)
        for a, b in zip(compiled(*arrays), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1e-30, float(jnp.abs(b).max())))
