"""Two processes of JAX that compute one gradient together, through gloo: a case of the study ``sharded``."""

import os
import socket
import subprocess
import sys

import pytest

from benchmarks import ROOT

JOB = """
import sys
from functools import partial
import jax
import numpy as np

coordinator, process, layout, methods = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4].split(",")
jax.distributed.initialize(coordinator, num_processes=2, process_id=process, initialization_timeout=60)
assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 2, 4)

from adcost.suite.vocabulary import Case
from benchmarks.studies import sharded

params = {"network": "mlp", "layout": layout, "depth": 9, "width": 16, "packs": 1}
chosen, network = sharded.LAYOUTS[layout], sharded.NETWORKS["mlp"]
sizes, names = ((2, 2), ("data", "model")) if chosen.model else ((4,), ("data",))
mesh = jax.make_mesh(sizes, names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))
weights, carry = chosen.weights(mesh, network.weights), chosen.inputs(mesh, network.tokens)

def gradient(case, mesh, **places):
    stack = sharded.METHODS[case.method].build(sharded.bound_block(case, mesh), case["depth"])
    return jax.jit(jax.grad(partial(sharded.loss, stack)), **places)

for method in methods:
    case = Case("sharded", method, tuple(params.items()), "float64")
    given = sharded.inputs(case)
    place = lambda a, sharding: jax.make_array_from_callback(a.shape, sharding, a.__getitem__)
    found = gradient(case, mesh, out_shardings=weights)(*jax.tree.map(place, given, (weights, carry, carry)))
    alone = gradient(case.with_method("plain"), None)(*given)
    for name, right in alone.items():
        right, shards = np.asarray(right), found[name].addressable_shards
        assert len(shards) == 2 and shards[0].data.size * 4 == right.size
        for shard in shards:
            apart = np.max(np.abs(np.asarray(shard.data) - right[shard.index])) / np.max(np.abs(right))
            print(method, name, apart < 1e-13 or apart, flush=True)
"""


@pytest.mark.parametrize("layout", ["full", "both"])
def test_two_processes_agree_with_one(layout):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
    }
    both = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, coordinator, str(process), layout, "plain,keep_nothing,sqrt,binomial"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    for out, errors in said:
        lines = [line.split() for line in out.splitlines() if line.startswith(("plain", "keep", "sqrt", "binomial"))]
        assert len(lines) == 4 * 2 * 2, errors  # methods, weights, shards of a process
        assert {line[2] for line in lines} == {"True"}, lines
