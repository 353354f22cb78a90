"""Programs without loops in parts: the same gradients, cut where least is alive, less memory if a compiler says so."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adcost
from adcost.targets import TARGETS
from benchmarks import ROOT

DEPTH, WIDTH = 12, 8
WEIGHTS = list(np.random.default_rng(0).normal(size=(DEPTH, WIDTH, WIDTH)) / 3)
X = np.random.default_rng(1).normal(size=(16, WIDTH))


def network(weights, x, key=None, *, skip=True):
    """Layers of a wide inside, with dropout; what is carried from layer to layer is narrow."""
    for i, weight in enumerate(weights):
        inside = jnp.tanh(jnp.concatenate([x @ weight] * 4, -1))
        if key is not None:
            inside *= jax.random.bernoulli(jax.random.fold_in(key, i), 0.5, inside.shape)
        x = x * skip + jnp.sum(inside.reshape(*x.shape[:-1], 4, -1), -2)
    return jnp.mean(x**2)


@pytest.mark.parametrize("parts", [None, 2, 3, 7, 500])
@pytest.mark.parametrize("key", [None, 0])
def test_gradients_are_those_of_the_whole(parts, key):
    key = None if key is None else jax.random.key(key)
    cut = adcost.in_parts(network, parts)
    for skip in (True, False):
        mine, whole = (jax.value_and_grad(f, (0, 1))(WEIGHTS, X, key, skip=skip) for f in (cut, network))
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_forward_mode_jit_and_a_loop_within_are_as_before():
    def f(x):
        return jnp.sum(jax.lax.fori_loop(0, 5, lambda _, h: jnp.sin(h), jnp.exp(x)) * jnp.cos(x))

    cut = adcost.in_parts(f, 3)
    np.testing.assert_allclose(jax.jit(jax.grad(cut))(X), jax.grad(f)(X), rtol=1e-12)
    np.testing.assert_allclose(jax.jvp(cut, (X,), (X,))[1], jax.jvp(f, (X,), (X,))[1], rtol=1e-12)


def test_a_program_is_cut_between_its_layers():
    found = adcost.in_parts(network, DEPTH).cuts(WEIGHTS, X)
    assert len(found) == DEPTH - 1
    assert {cut.alive for cut in found} == {X.nbytes}, "one activation: inside a layer it would be more"
    assert all("test_parts.py" in cut.line for cut in found)


def test_what_has_no_two_parts_stays_whole_and_one_part_is_refused():
    assert adcost.in_parts(lambda x: x * 2, 5)(3.0) == 6.0
    assert adcost.in_parts(lambda x: x)(3.0) == 3.0
    assert isinstance(adcost.in_parts(lambda x: (x.sum(), 1.0))(X)[1], jax.Array)
    with pytest.raises(ValueError, match="two parts or more, got 1"):
        adcost.in_parts(network, 1)


PLANNED = """
import jax, jax.numpy as jnp, adcost

def network(weights, x):
    for weight in weights:
        x = x + jnp.tanh(jnp.sin(x @ weight) * 1.1)
    return jnp.mean(x**2)

shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, "float32")
found = adcost.in_parts(network, 7).saving([shape(64, 64)] * 48, shape(1024, 64), target="nvidia-h100")
print(found.whole / 2**18, found.parts / 2**18, found.confirmed)
"""


@pytest.mark.skipif(TARGETS["nvidia-h100"].unavailable() is not None, reason="needs the extra targets-gpu")
def test_a_compiler_is_asked_whether_it_saves():
    environment = {**os.environ, **TARGETS["nvidia-h100"].environment}
    done = subprocess.run([sys.executable, "-c", PLANNED], cwd=ROOT, env=environment, capture_output=True, text=True)
    whole, parts, confirmed = done.stdout.split()
    assert float(parts) < 0.25 * float(whole), done.stderr
    assert confirmed == "True"
