"""Training steps of real networks: every method takes the same step, residuals are what is said of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcost.rulers import count as counts
from adcost.suite.vocabulary import Case
from adcost.targets.compiling import compile_for, planned_bytes
from analysis import fit, theory
from benchmarks import all_studies
from benchmarks.studies import networks

STACKS = list(networks.DIVIDED)
METHODS = [name for name, method in networks.METHODS.items() if method.differentiates]


def case(network, method="plain", depth=4, batch=3, steps=1, segments=2, dtype="float64"):
    return Case("networks", method, tuple(networks.size(network, depth, batch, steps, segments).items()), dtype)


def gradient(of):
    program = networks.program(of)
    return jax.tree.map(lambda m: m / (1 - networks.DECAY), program.checked(jax.jit(program.run)(*program.inputs())))


@pytest.mark.parametrize("network", STACKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_the_plain_step(network, method):
    program, plain = networks.program(case(network, method)), networks.program(case(network))
    found, expected = jax.jit(program.run)(*program.inputs()), jax.jit(plain.run)(*plain.inputs())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-12), found, expected)


@pytest.mark.parametrize("network", STACKS)
def test_the_plain_gradient_is_that_of_finite_differences(network):
    of = case(network)
    params, _, images, labels = networks.inputs(of)
    rng = np.random.default_rng(0)
    along = jax.tree.map(lambda a: rng.normal(size=a.shape), params)
    loss = partial(networks.loss, networks.scanned(networks.NETWORKS[network].block))

    def at(t):
        return float(loss(jax.tree.map(lambda a, v: a + t * v, params, along), images, labels))

    by_differences = (at(1e-5) - at(-1e-5)) / 2e-5
    products = jax.tree.map(lambda g, v: float(jnp.vdot(g, v)), gradient(of), along)
    assert sum(jax.tree.leaves(products)) == pytest.approx(by_differences, rel=1e-6)


def test_the_reference_is_the_first_moment_in_float64():
    of = case("mlp", dtype="float32")
    kernel = networks.reference(of)["blocks"]["kernel"]
    assert kernel.dtype == np.float64
    found = networks.program(of)
    mine = found.checked(jax.jit(found.run)(*found.inputs()))["blocks"]["kernel"]
    np.testing.assert_allclose(mine, kernel, rtol=1e-3, atol=1e-6)


def carries(of):
    program = networks.program(of)
    return counts.residual_bytes(program.loss, *program.shapes()) / program.facts["activation"][0]


@settings(deadline=None, max_examples=8)
@given(st.sampled_from(STACKS), st.integers(2, 7), st.integers(1, 4))
def test_checkpointing_keeps_what_it_is_said_to_keep(network, depth, batch):
    sized = partial(case, network, depth=depth, batch=batch, dtype="float32")
    assert carries(sized("nothing")) == depth
    assert carries(sized("everything")) == carries(sized("plain"))
    assert carries(sized("segments", segments=depth)) == depth
    slots = networks.program(sized("sqrt")).facts["slots"][0]
    assert carries(sized("sqrt")) == slots
    named = carries(sized("names")) / depth - 1  # beside the carry
    assert named == {"mlp": 1, "transformer": 5}[network]  # hidden; attended and a hidden of four widths
    assert carries(sized("offload")) == carries(sized("names"))


@pytest.mark.parametrize("network", STACKS)
def test_the_plan_follows_the_residuals(network):
    def planned(method):
        program = networks.program(case(network, method, depth=16, batch=256, segments=0, dtype="float32"))
        temp = planned_bytes(compile_for(program.run, *program.shapes()))["temp"]
        return temp / program.facts["activation"][0], carries(case(network, method, 16, 256, dtype="float32"))

    (plain, kept), (nothing, few) = planned("plain"), planned("nothing")
    assert (plain - nothing) / (kept - few) == pytest.approx(1, abs=0.1)


def test_a_loss_over_many_steps_falls():
    program = networks.program(case("mlp", depth=4, batch=32, steps=12))
    losses = np.asarray(jax.jit(program.run)(*program.inputs()))
    assert losses.shape == (12,)
    assert losses[-1] < losses[0]
    said = list(program.says(losses))
    assert [figure.value for figure in said] == [pytest.approx(value) for value in losses]


def test_sizes_of_which_it_is_asked_what_fits_are_shapes_alone():
    study = all_studies()["networks"]
    asked = {studied.method for studied in study.cases("full") if study.fit.where(studied)}
    assert asked == {"plain", "dots", "dots_no_batch", "names", "offload", "nothing", "sqrt", "binomial"}
    large = Case("networks", "plain", (("batch", 4), *study.fit.workload(case("transformer")).items()))
    weights = networks.program(large).shapes()[0]["blocks"]["up"]
    assert weights.shape == (24, 1024, 4096)


def split(best, seed, depth=144, noise=0.01):
    """The fit to memory over numbers of segments whose least is where it is said to be."""
    k = np.array([n for n in range(1, depth + 1) if depth % n == 0], float)
    y = (30 + k + best**2 / k) * np.exp(noise * np.random.default_rng(seed).normal(size=len(k)))
    return fit.best_split(list(k), list(depth / k), list(y))


@pytest.mark.parametrize("best", [6.0, 17.0, 40.0])
def test_the_best_split_is_found_and_another_is_not(best):
    found = [split(best, seed) for seed in range(20)]
    assert all(value == pytest.approx(best, rel=0.1) for value, _, _ in found)
    assert sum(low <= best <= high for _, low, high in found) >= 15, "95% of many, fewer of 15 divisors"
    wrong = [split(1.5 * best, seed) for seed in range(20)]
    assert not any(low <= best <= high for _, low, high in wrong)


def test_more_segments_that_always_help_have_no_best_number():
    k = [1.0, 2, 4, 8, 16]
    assert fit.best_split(k, [16 / x for x in k], [100 / x + 5 - 0.1 * x for x in k])[0] == np.inf


@given(st.integers(2, 400), st.floats(1, 50))
def test_the_predicted_number_of_segments_is_the_best(depth, rho):
    best = theory.best_segments(depth, rho)
    least = theory.segments_memory(depth, rho, best)
    assert all(theory.segments_memory(depth, rho, k) >= least for k in (0.9 * best, 1.1 * best))
