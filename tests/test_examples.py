"""The examples: programs that nobody here wrote, in small."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adcost
from adcost.arguments import gradient, jitted
from adcost.checkpointing.values import is_array
from benchmarks import ROOT

SMALL = {  # constants of each file, and the size that its example is asked for
    "navier_stokes": ({"STEPS": 20}, 16),
    "transformer": ({"LAYERS": 6, "HEADS": 2, "WIDTH": 16, "TOKENS": 8}, 2),
    "recurrent": ({"BATCH": 2, "LENGTH": 30}, 30),
    "mlp": ({}, 4),
    "chain": ({"LAYERS": 4, "WIDTH": 8}, 4),
    "adaptive_ode": ({"MOST_STEPS": 16}, 2),
    "sharded": ({"CLUSTER": "cpu:2", "DEVICES": 2, "LAYERS": 4, "HEADS": 2, "WIDTH": 16, "TOKENS": 8}, 2),
}
NEEDS = {"navier_stokes": "exponax", "recurrent": "flax", "adaptive_ode": "diffrax"}
FILES = sorted((ROOT / "examples").glob("*.py"))


def loaded(path: Path):
    """A module of an example, made small; Equinox is needed by most."""
    for package in ("equinox", NEEDS.get(path.stem, "equinox")):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    constants, size = SMALL[path.stem]
    for name, value in constants.items():
        assert hasattr(module, name)
        setattr(module, name, value)
    return module, size


def filled(args):
    """Shapes as arrays of small numbers."""
    rng = np.random.default_rng(0)

    def leaf(a):
        return jnp.asarray(rng.normal(size=a.shape), a.dtype) / 4 if isinstance(a, jax.ShapeDtypeStruct) else a

    return jax.tree.map(leaf, args)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_planned_and_its_gradient_stays_the_same(path):
    with jax.enable_x64(False):
        module, size = loaded(path)
        args = module.example(size)
        target = getattr(module, "CLUSTER", "cpu")
        assert adcost.plan(gradient(module.loss), *args, target=target).total > 0
        given = filled(args)
        right = [leaf for leaf in jax.tree.leaves(jitted(gradient(module.loss))(*given)) if is_array(leaf)]
        scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in right)
        assert scale > 0
        for way in (adcost.checkpointed(module.loss), adcost.in_parts(module.loss, 4)):
            for mine, theirs in zip(jax.tree.leaves(jitted(gradient(way))(*given)), right, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4 * scale)
