"""The study ``sharded``: every method in every layout gives the gradient of one device, on eight that are there."""

import os
import subprocess
import sys

import pytest

from adcost.suite.vocabulary import Case
from analysis.studies.sharded.readings import CARRY
from benchmarks import ROOT
from benchmarks.studies import sharded

JOB = """
import itertools, sys
import jax
import numpy as np
from adcost.suite.vocabulary import Case
from adcost.targets import named
from adcost.targets.compiling import mesh_on
from benchmarks.studies import sharded

network, methods = sys.argv[1], sys.argv[2].split(",")
target = named("cpu:8")
assert jax.device_count() == 8
for layout, method in itertools.product(sharded.LAYOUTS, methods):
    params = {"network": network, "layout": layout, "depth": 5, "width": 128, "packs": 1}
    case = Case("sharded", method, tuple(params.items()), "float64")
    program = sharded.STUDY.made(case, target)
    mesh = mesh_on(sharded.LAYOUTS[layout].mesh(target), target)
    places = jax.tree.map(lambda shape: jax.NamedSharding(mesh, shape.sharding.spec), program.shapes())
    found = jax.jit(program.run)(*jax.device_put(tuple(program.inputs()), places))
    for name, right in sharded.reference(case).items():
        assert found[name].sharding.is_equivalent_to(places[0][name], 3), case.id
        assert np.max(np.abs(found[name] - right)) < 1e-12 * np.max(np.abs(right)), case.id
        print("right", flush=True)
"""


@pytest.mark.parametrize(("network", "methods"), [("mlp", list(sharded.METHODS)), ("transformer", ["plain", "sqrt"])])
def test_every_method_gives_the_gradient_of_one_device(network, methods):
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "8", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
    }
    command = [sys.executable, "-c", JOB, network, ",".join(methods)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    due = len(sharded.LAYOUTS) * len(methods) * len(sharded.NETWORKS[network].weights)
    assert done.stdout.split() == ["right"] * due, done.stderr


def test_the_analysis_knows_the_axes_that_divide_the_carry():
    assert {name: tuple(axis for axis in layout.carry if axis) for name, layout in sharded.LAYOUTS.items()} == CARRY


def test_the_facts_are_those_of_the_whole_network():
    params = {"network": "transformer", "layout": "full", "depth": 9, "width": 64, "packs": 2}
    facts = sharded.facts_of(Case("sharded", "binomial", tuple(params.items()), "float32"))
    assert facts == {
        "activation": (4.0 * 512 * 16 * 64, "B"),
        "weights": (4.0 * 9 * 12 * 64**2, "B"),
        "slots besides the input": (3.0, "carries"),
    }
