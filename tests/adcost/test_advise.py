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
from adcost.advise import advise, finalists
from adcost.arguments import numbered
from adcost.candidates import Candidate, schedules
from adcost.largest import largest, too_large
from adcost.plan import plan, planned
from adcost.targets.elsewhere import CompilerFailed

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


def test_finalists_are_the_best_whatever_it_costs_to_keep_things():
    ways = [("products", 1.01, 80), ("weighted", 1.1, 40), ("twice", 1.3, 3), ("nothing", 1.31, 4), ("much", 2.0, 1)]
    assert finalists(ways, 100, "nothing") == ["products", "twice", "nothing"]
    assert finalists(ways, 100, None) == ["products", "twice", "weighted"]
    assert finalists(ways[:1], 100, "nothing") == ["products"]
    assert finalists([], 100, None) == []


def test_of_finalists_that_are_one_program_the_first_is_timed():
    ways = [("plain", 1.0, 100), ("nothing", 1.0, 100), ("parts", 1.2, 20)]
    assert finalists(ways, 100, "nothing") == ["plain", "parts"]


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
        (lambda: advise(lambda s, x: jnp.sum(s * x), 2, jnp.ones(3)), "nothing in argnums 0 has a derivative"),
        (lambda: advise(loss, *SHAPES, argnums=()), "argnums"),
        (lambda: advise(loss, *SHAPES, argnums=(0, -2)), "twice"),
        (lambda: numbered(SHAPES, "0"), "give the number of an argument"),
        (lambda: advise(loss, *SHAPES).best.apply({1}, 2), "which is no key for a compiled program"),
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

        beyond = too_large(total, 10**9, range(1, 2**40))
        assert total(beyond) > 10**9
        assert len(asked) < 15
    assert too_large(lambda n: n, 100, range(1, 51)) is None


def test_numbers_of_python_have_their_gradient():
    def wave(params, x):
        return (jnp.sin(params["w"] * x) * params["s"]).sum()

    params, x = {"w": jnp.ones(3), "s": 2.0}, jnp.ones(3)
    found = advise(wave, params, x).best.apply(params, x)
    right = jax.grad(wave)(params, x)
    jax.tree.map(np.testing.assert_allclose, found, right)


def test_a_model_that_holds_functions_keeps_its_settings():
    def run(model, x):
        return jnp.sum(model["act"](x @ model["w"]) * model["scale"])

    model, x = {"act": jnp.tanh, "w": jnp.ones((3, 3)), "scale": 2.0}, jnp.ones((2, 3))
    found = advise(run, model, x).best.apply(model, x)
    right = jax.grad(lambda w: run({**model, "w": w}, x))(model["w"])
    np.testing.assert_allclose(found["w"], right)
    assert found["scale"] is None


def test_sizes_of_numpy_are_sizes():
    def repeated(w, x, n):
        for _ in range(n):
            x = jnp.tanh(x @ w)
        return x.sum()

    given = jnp.ones((4, 4)), jnp.ones((4, 4)), np.int64(3)
    found = advise(repeated, *given)
    np.testing.assert_allclose(found.best.apply(*given), jax.grad(repeated)(*given))


def test_loops_of_no_steps_are_no_trouble():
    def none(w, h):
        return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(h @ w), None), h, None, length=0)[0] @ w)

    assert advise(none, *SHAPES).best is not None


def test_what_prints_is_planned_but_not_run(capfd):
    def printing(w, h):
        jax.debug.print("it runs")
        return loss(w, h)

    found = advise(printing, *arguments(), memory=1e9)
    assert all(row.time is None for row in found.rows)
    assert "it runs" not in capfd.readouterr().out


def refusing(memory):
    """A compiler that does not plan what is too large, as those of TPUs do not."""

    def run(program, target, budget):
        found = planned(program, target, budget)
        if found.total > memory:
            raise CompilerFailed("JaxRuntimeError: RESOURCE_EXHAUSTED: it is too large")
        return found

    return run


def test_what_a_compiler_refuses_for_want_of_memory_does_not_fit(monkeypatch):
    memory = 60 * CARRY
    monkeypatch.setattr(sys.modules["adcost.advise"], "planned", refusing(memory))
    found = advise(loss, *SHAPES, memory=memory)
    (plain,) = (row for row in found.rows if row.name == "plain")
    assert (plain.plan, plain.fits) == (None, False)
    assert "RESOURCE_EXHAUSTED" in plain.note
    assert 0.6 * memory < found.best.plan.total <= memory
    monkeypatch.setattr(sys.modules["adcost.largest"], "planned", refusing(memory))
    sizes = {row.name: row.n for row in largest(loss, of_batch, memory=memory).rows}
    assert 0 < sizes["plain"] < sizes["two passes"]


def test_a_size_that_fails_is_said():
    def small(w, h):
        assert h.shape[0] < 50, "too many rows"
        return loss(w, h)

    with pytest.raises(ValueError, match=r"could not be planned: at .*AssertionError: too many rows"):
        largest(small, of_batch, memory=1e9)
    found = largest(small, of_batch, memory=1e9, most=49)
    assert found.best.n == 49
    assert "not tried beyond" in found.best.note


def test_sizes_begin_where_they_make_sense():
    def even(w, h):
        return loss(w, h.reshape(2, -1, WIDTH)[0])

    found = largest(even, lambda n: of_batch(2 * n), memory=2**20, least=4)
    assert found.best.n > 4
