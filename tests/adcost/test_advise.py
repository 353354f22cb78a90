"""``advise`` and ``largest``: what they choose fits, is right, and its code gives the same."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import adcost
from adcost.advise import advise
from adcost.candidates import Candidate, schedules
from adcost.largest import largest, too_large
from adcost.plan import plan

N, ROWS, WIDTH = 200, 64, 32
CARRY = ROWS * WIDTH * 4


def loss(w, h):
    def step(h, _):
        return checkpoint_name(jnp.tanh(h @ w), "hidden"), None

    return jnp.sum(lax.scan(step, h, None, length=N)[0] ** 2)


def arguments(dtype="float32"):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) / 4 for shape in ((WIDTH, WIDTH), (ROWS, WIDTH)))


SHAPES = jax.ShapeDtypeStruct((WIDTH, WIDTH), "float32"), jax.ShapeDtypeStruct((ROWS, WIDTH), "float32")


@pytest.fixture(scope="module")
def tight():
    return advise(loss, *SHAPES, memory=60 * CARRY)


def test_the_best_fits_and_is_the_least_work(tight):
    fitting = [row for row in tight.rows if row.fits]
    assert tight.best in fitting
    assert tight.best.ratio == min(row.ratio for row in fitting)
    assert tight.best.plan.total <= 60 * CARRY
    assert not tight.rows[[row.name for row in tight.rows].index("plain")].fits


def test_the_memory_is_used(tight):
    assert tight.best.plan.total > 0.8 * 60 * CARRY
    assert tight.best.ratio < 1.6


def test_every_row_gives_the_gradient_of_plain(tight):
    given = arguments("float64")
    right = jax.grad(loss)(*given)
    for row in tight.rows:
        if row.plan is not None:
            np.testing.assert_allclose(jax.grad(row.loss)(*given), right, rtol=1e-10, err_msg=row.name)


def test_every_code_gives_what_was_planned(tight):
    for row in tight.rows:
        if row.plan is not None:
            way = eval(row.code, {"adcost": adcost, "jax": jax, "loss": loss})
            assert plan(jax.grad(way), *SHAPES).total == row.plan.total, row.code


def test_named_values_are_candidates(tight):
    (named,) = (row for row in tight.rows if row.name.startswith("keep hidden"))
    assert "save_only_these_names('hidden')" in named.code


def test_what_changes_nothing_is_said_to():
    def straight(w, h):
        return jnp.sum(jnp.sin(h @ w))

    found = advise(straight, *SHAPES)
    assert any(row.note == "changed nothing" for row in found.rows)
    assert found.best.name == "plain"


def test_where_nothing_fits_the_least_is_named():
    found = advise(loss, *SHAPES, memory=2 * CARRY)
    assert found.best is None
    assert "nothing fits into 16 KiB" in found.why
    totals = [row.plan.total for row in found.rows if row.plan]
    assert found.rows[0].plan.total == min(totals) < 15 * CARRY


def test_a_candidate_that_fails_is_a_row_with_its_reason(monkeypatch):
    def broken(_):
        def run(*_):
            raise ValueError("it is broken")

        return run

    ways = [Candidate("broken", "broken(loss)", broken)]
    monkeypatch.setattr(sys.modules["adcost.advise"], "candidates", lambda *_: ways)
    found = advise(loss, *SHAPES)
    (row,) = (row for row in found.rows if row.name == "broken")
    assert row.fits is False
    assert "it is broken" in row.note


def test_advice_can_be_read(tight):
    text = str(tight)
    assert "480 KiB" in text
    assert tight.best.code in text
    assert "<table>" in tight._repr_html_()
    assert json.loads(json.dumps(tight.json()))["best"] == tight.best.name


def test_arrays_on_this_machine_are_timed():
    found = advise(loss, *arguments(), memory="1 GiB")
    timed = [row for row in found.rows if row.time is not None]
    assert len(timed) == 3
    assert all(row.time.low <= row.time.value <= row.time.high for row in timed)
    assert found.best in timed


def test_schedules_share_the_memory_of_all_loops():
    def two(w, h):
        return loss(w, lax.scan(lambda h, _: (jnp.sin(h @ w), None), h, None, length=100)[0])

    found = schedules(two, SHAPES, 2**18, 1000)
    assert set(found) == {N, 100}
    few = schedules(two, SHAPES, 0, 1000)
    assert all(few[n].taped_evaluations > found[n].taped_evaluations for n in few)
    assert schedules(two, SHAPES, 0, 10**9) == {}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: advise(lambda w, h: h, *SHAPES), "the loss must give one number"),
        (lambda: advise(loss, *SHAPES, memory="lots"), "is no memory"),
        (lambda: advise(loss, *SHAPES, target="h100"), "unknown target"),
        (lambda: largest(loss, lambda n: SHAPES, target="gpu"), "memory of gpu is not known"),
    ],
)
def test_what_makes_no_sense_gets_a_line(call, said):
    with pytest.raises(ValueError, match=said) as found:
        call()
    assert "\n" not in str(found.value)


def of_batch(n):
    return SHAPES[0], jax.ShapeDtypeStruct((n, WIDTH), "float32")


def test_the_largest_batch_fits_and_a_larger_one_does_not():
    memory = 2 * 2**20
    found = largest(loss, of_batch, memory=memory)
    sizes = {row.name: row.n for row in found.rows}
    assert sizes["two passes"] > 3 * sizes["plain"]
    for row in found.rows:
        assert row.plan.total <= memory
        if row.name in ("plain", "two passes"):
            way = eval(row.code, {"adcost": adcost, "jax": jax, "loss": loss})
            assert plan(jax.grad(way), *of_batch(row.n + row.n // 16 + 2)).total > memory
    assert found.best.n == max(sizes.values())
    assert "2 MiB" in str(found)


def test_a_size_beyond_is_found_in_a_few_steps():
    for power in (1, 2, 3):
        asked = []

        def total(n, power=power, asked=asked):
            asked.append(n)
            return 1000 + n**power

        beyond = too_large(total, 10**9, 2**40)
        assert total(beyond) > 10**9
        assert len(asked) < 15
    assert too_large(lambda n: n, 100, 50) is None
