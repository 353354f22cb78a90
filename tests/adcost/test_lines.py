"""Programs of which it is known what holds their memory: the kinds of it, the lines, and what changes them."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import adcost
from adcost import Plan
from adcost.__main__ import main
from adcost.peak import annotated
from adcost.targets.alive import largest_of_each
from tests.adcost.test_peak import TOLD, line_of

STEPS, ROWS, WIDTH = 64, 512, 256
W, H = jax.ShapeDtypeStruct((WIDTH, WIDTH), "float32"), jax.ShapeDtypeStruct((ROWS, WIDTH), "float32")
CARRY = ROWS * WIDTH * 4
TABLE = np.random.default_rng(0).normal(size=(WIDTH, 4096)).astype("float32")
H100 = "nvidia-h100"
each_target = pytest.mark.parametrize("target", TOLD)
needs_h100 = pytest.mark.skipif(H100 not in TOLD, reason="the compiler of GPUs is not installed")


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


def kinds(plan, what):
    return [row for row in plan.peak.rows if row.what == what]


def loop(step, h):
    return jnp.sum(lax.scan(lambda h, _: (step(h), None), h, None, length=STEPS)[0] ** 2)


def layer(w, h):
    y = checkpoint_name(h @ w, "product")
    return jnp.sin(jnp.tanh(y))


def layers(w, h, policy=None, again=lambda step: step):
    step = partial(layer, w) if policy is None else jax.checkpoint(partial(layer, w), policy=policy)
    return loop(again(step), h)


@jax.custom_vjp
def three(h):
    return h


def three_kept(h):
    first = jnp.sin(h)
    second = jnp.exp(-h)
    third = jnp.tanh(h)
    return first + second * third, (first, second, third)


three.defvjp(three_kept, lambda kept, g: (g * kept[0] - g * kept[1] * kept[2],))


@each_target
def test_three_residuals_a_step_are_one_row_of_the_line_that_made_them(target):
    plan = adcost.plan(jax.grad(partial(loop, three)), H, target=target)
    (found,) = kinds(plan, "residual of a loop")
    assert (found.count, found.steps, found.size) == (3, STEPS, 3 * STEPS * CARRY)
    assert found.line.line == line_of(loop, "step(h)")  # JAX has the line that calls a custom_vjp, not those inside
    assert {*found.operation.split(", ")} == {"sin", "exp", "tanh"}
    assert f"3 x {STEPS} steps of f32[{ROWS},{WIDTH}]" in str(plan)


@each_target
def test_a_checkpoint_around_a_whole_scan_changes_nothing(target):
    plain = adcost.plan(jax.grad(layers), W, H, target=target)
    changed = adcost.diff(plain, adcost.plan(jax.grad(jax.checkpoint(layers)), W, H, target=target))
    assert changed.nothing
    assert "changed nothing" in str(changed)


@each_target
def test_a_policy_that_names_what_is_not_there_is_the_one_that_keeps_nothing(target):
    policies = jax.checkpoint_policies
    absent, nothing, named = (
        adcost.plan(jax.grad(partial(layers, policy=policy)), W, H, target=target)
        for policy in (
            policies.save_only_these_names("produkt"),
            policies.nothing_saveable,
            policies.save_only_these_names("product"),
        )
    )
    assert adcost.diff(nothing, absent).nothing
    grown = adcost.diff(nothing, named).rows[0]
    assert (grown.said, grown.after - grown.before) == ("grew", pytest.approx(STEPS * CARRY, rel=0.03))
    assert f"test_lines.py:{line_of(layer, 'h @ w')}" in grown.where


@each_target
def test_a_donated_buffer_is_named_and_counted_once(target):
    def updated(params, grads):
        return jax.tree.map(lambda p, g: p - 0.1 * jnp.tanh(g), params, grads)

    params = {"bias": [H], "weights": W}
    plan = adcost.plan(jax.jit(updated, donate_argnums=0), params, params, target=target)
    donated, given = kinds(plan, "donated argument"), kinds(plan, "argument")
    assert {row.operation for row in donated} == {"params['bias'][0]", "params['weights']"}
    assert {row.operation for row in given} == {"grads['bias'][0]", "grads['weights']"}
    assert sum(row.size for row in donated) == plan.alias == CARRY + 4 * WIDTH**2
    assert plan.peak.told == pytest.approx(plan.total, rel=0.001)


@each_target
def test_a_constant_baked_in_is_named_with_its_line(target):
    def projected(h):
        return jnp.sum(jnp.tanh(h @ TABLE) ** 2)

    plan = adcost.plan(jax.grad(projected), H, target=target)
    baked = kinds(plan, "constant baked in")
    assert sum(row.size for row in baked) == plan.constants
    assert {row.size for row in baked} == {TABLE.nbytes}  # a GPU's compiler holds a transposed copy beside it
    assert {row.line.line for row in baked} == {line_of(projected, "TABLE")}
    assert all(row.beside for row in baked)  # it is there before the program runs
    assert plan.total == plan.temp + plan.arguments + plan.outputs == pytest.approx(plan.peak.told)
    assert "constants in the program itself" in str(plan)


@each_target
def test_what_becomes_of_the_identity_that_a_jacobian_pushes_through(target):
    """jax issue 215: d columns at once."""
    d = 500
    x, a = jax.ShapeDtypeStruct((d,), "float32"), jax.ShapeDtypeStruct((d, d), "float32")

    def solved(x, a):
        return jnp.linalg.solve(a, jnp.sin(x))

    plan = adcost.plan(jax.jacfwd(solved), x, a, target=target)
    whole = [row for row in plan.peak.rows if row.size >= 4 * d * d and row.what not in ("argument", "output")]
    assert whole
    assert {row.line.line for row in whole} == {line_of(solved, "solve(")}
    product = adcost.plan(jax.jacfwd(lambda x, a: jnp.tanh(a @ x)), x, a, target=target)
    assert not any("adcost" in row.line.file for row in product.peak.rows if row.line and row.line.file != __file__)


@each_target
def test_pairwise_second_derivatives_hold_atoms_squared_for_each_coordinate(target):
    """jax issue 787."""
    atoms = 40

    def energy(x):
        apart = x[:, None, :] - x[None, :, :]
        distance = jnp.sqrt(jnp.sum(apart * apart, -1) + 1e-3)
        return jnp.sum(jnp.exp(-distance) / distance)

    plan = adcost.plan(jax.hessian(energy), jax.ShapeDtypeStruct((atoms, 3), "float32"), target=target)
    largest = plan.peak.rows[0]
    lines = [line_of(energy, text) for text in ("apart =", "distance =", "jnp.exp")]
    assert largest.line.line in lines
    if jax.__version__ == "0.10.2":  # newer compilers fuse it all on a CPU
        assert largest.size >= 3 * atoms * atoms * atoms * 4
    assert plan.peak.with_a_line > 0.9


@each_target
def test_what_a_loop_stacks_of_an_array_it_closes_over(target):
    def closed_over(x, a):
        def step(h, i):
            scaled = lax.cond(i > 3, lambda: a * 3.0, lambda: a * 2.0)
            return jnp.sin(h * scaled), None

        return jnp.sum(lax.scan(step, x, jnp.arange(STEPS))[0])

    plan = adcost.plan(jax.grad(closed_over), H, H, target=target)
    stacks = [row for row in plan.peak.rows if row.steps == STEPS and row.size >= STEPS * CARRY]
    assert {row.line.line for row in stacks} == {line_of(closed_over, "lax.cond"), line_of(closed_over, "jnp.sin")}


@each_target
def test_residuals_of_loops_in_loops_and_in_branches_that_may_not_run(target):
    """As of an adaptive solver: an outer loop whose step does nothing once it has ended."""

    def solved(w, h):
        def inner(h, _):
            return jnp.tanh(h @ w), None

        def outer(h, i):
            return lax.cond(i < 6, lambda h: lax.scan(inner, h, None, length=7)[0], lambda h: h, h), None

        return jnp.sum(lax.scan(outer, h, jnp.arange(8))[0])

    plan = adcost.plan(jax.grad(solved), W, H, target=target)
    largest = plan.peak.rows[0]
    assert (largest.what, largest.steps) == ("residual of a loop", 56)
    assert largest.line.line == line_of(solved, "jnp.tanh")
    assert f"56 steps of f32[{ROWS},{WIDTH}]" in largest.of


@needs_h100
def test_what_is_moved_to_the_host_is_beside_the_plan():
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["product"],
        offload_src="device",
        offload_dst="pinned_host",
    )
    plan = adcost.plan(jax.grad(partial(layers, policy=policy)), W, H, target=H100)
    (moved,) = [row for row in plan.peak.rows if row.beside]
    assert moved.size == plan.host == STEPS * CARRY
    assert moved.line.line == line_of(layer, "h @ w")
    assert plan.peak.told == pytest.approx(plan.total, rel=0.02)
    assert "on the host" in str(plan)


@each_target
def test_slots_of_a_schedule_are_called_so(target):
    slots = adcost.sqrt(STEPS).slots
    plan = adcost.plan(jax.grad(adcost.checkpointed(layers, adcost.sqrt)), W, H, target=target)
    (found,) = kinds(plan, "slots of a schedule")
    assert (found.steps, found.size) == (slots - 1, (slots - 1) * CARRY)  # one slot is the input's own place
    assert f"{slots - 1} slots of f32" in str(plan)
    assert {row.operation for row in kinds(plan, "argument")} == {"w", "h"}


def test_advice_says_which_lines_its_ways_freed():
    found = adcost.advise(layers, W, H, memory="16 MiB")
    assert found.best.freed[0].before - found.best.freed[0].after > STEPS * CARRY
    assert f"test_lines.py:{line_of(layer, 'jnp.sin')}" in found.best.freed[0].where
    assert "frees" in str(found)
    assert all(not row.freed for row in found.rows if row.name == "plain")
    assert json.loads(json.dumps(found.json()))["rows"][0]["freed"]


@needs_h100
def test_what_changed_between_policies_targets_and_saved_plans(tmp_path):
    plain, saving = (adcost.plan(jax.grad(f), W, H) for f in (layers, adcost.checkpointed(layers, adcost.sqrt)))
    changed = adcost.diff(plain, saving)
    assert changed.freed[0].said == "shrank"
    assert changed.total == (plain.total, saving.total)
    assert changed.rows == tuple(sorted(changed.rows, key=lambda row: -abs(row.after - row.before)))
    plain.save(tmp_path / "plain.json")
    saving.save(tmp_path / "saving.json")
    assert Plan.load(tmp_path / "plain.json") == plain
    assert Plan.load(tmp_path / "plain.json").peak == plain.peak
    assert adcost.diff(tmp_path / "plain.json", tmp_path / "saving.json").rows == changed.rows
    there = adcost.plan(jax.grad(layers), W, H, target=H100)
    assert H100 in str(adcost.diff(plain, there))
    assert json.loads(json.dumps(changed.json()))["rows"]


def test_lines_of_a_package_are_the_same_wherever_it_lies(tmp_path):
    plan = adcost.plan(jax.grad(layers), W, H)
    plan.save(tmp_path / "here.json")
    text = (tmp_path / "here.json").read_text()
    mine = __file__
    (tmp_path / "a.json").write_text(text.replace(mine, "/opt/a/lib/site-packages/model/layers.py"))
    (tmp_path / "b.json").write_text(text.replace(mine, "/home/b/lib/site-packages/model/layers.py"))
    assert adcost.diff(tmp_path / "a.json", tmp_path / "b.json").nothing
    assert not adcost.diff(tmp_path / "here.json", tmp_path / "b.json").nothing


def test_where_no_line_is_known_nothing_is_said_to_be_the_same():
    plan = adcost.plan(jax.grad(layers), W, H)
    changed = adcost.diff(plan, replace(plan, peak=None))
    assert not changed.nothing
    assert "no line is known" in str(changed)


def test_a_file_that_is_no_plan_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "a.json").write_text("{}")
    assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert (
        capsys.readouterr().err
        == f"adcost: {tmp_path}/a.json is no saved plan: write one with Plan.save, or adcost plan --save\n"
    )


PROGRAM = """import jax
import jax.numpy as jnp


def layer(w, h):
    return jnp.tanh(h @ w)


def loss(w, h):
    return jnp.sum(jax.lax.scan(lambda h, _: (layer(w, h), None), h, None, length=64)[0] ** 2)


def again(w, h):
    return jnp.sum(jax.lax.scan(lambda h, _: (jax.checkpoint(layer)(w, h), None), h, None, length=64)[0] ** 2)


def example():
    return jax.ShapeDtypeStruct((64, 64), "float32"), jax.ShapeDtypeStruct((128, 64), "float32")
"""


def test_the_command_shows_lines_annotates_saves_and_compares(tmp_path, capsys):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)

    def said(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    short = said("plan", f"{file}:loss", "--grad")
    every = said("plan", f"{file}:loss", "--grad", "--lines")
    assert "more" in short
    assert len(every.splitlines()) > len(short.splitlines())
    assert "program.py:6 (layer)" in short
    margin = said("plan", f"{file}:loss", "--grad", "--annotate").splitlines()
    assert margin[5].split()[1:] == ["MiB", "6", "return", "jnp.tanh(h", "@", "w)"]
    assert [line.split("  ", 1)[-1].strip() for line in margin if "import" in line] == [
        "1  import jax",
        "2  import jax.numpy as jnp",
    ]
    said("plan", f"{file}:loss", "--grad", "--save", tmp_path / "plain.json")
    said("plan", f"{file}:again", "--grad", "--save", tmp_path / "again.json")
    text = said("diff", tmp_path / "plain.json", tmp_path / "again.json")
    assert "program.py:6 (layer)" in text
    assert "shrank" in text
    assert json.loads(said("diff", "--json", tmp_path / "plain.json", tmp_path / "again.json"))["rows"]
    assert json.loads(said("plan", f"{file}:loss", "--grad", "--json"))["peak"]["rows"]


def test_a_plan_in_a_notebook_has_a_bar_a_row():
    plan = adcost.plan(jax.grad(layers), W, H)
    html = plan._repr_html_()
    assert html.count("width:12em") == 5
    assert "test_lines.py" in html
    assert html.count("<tr>") == 6


def test_bytes_in_the_margin_are_of_the_line_in_that_file():
    plan = adcost.plan(jax.grad(layers), W, H)
    lines = annotated(plan.peak, Path(__file__)).splitlines()
    assert "MiB" in lines[line_of(layer, "jnp.sin") - 1]
    assert "iB" not in lines[0]


def test_time_in_stretches_keeps_the_largest():
    assert largest_of_each(np.arange(3)) == [0, 1, 2]
    told = largest_of_each(np.arange(10_000))
    assert (len(told), told[0], told[-1]) == (1000, 9, 9999)


def unrolled(w, h, again=lambda part: part):
    """16 layers, four in a part."""

    def part(h):
        for _ in range(4):
            h = jnp.sin(jnp.tanh(h @ w))
        return h

    for _ in range(4):
        h = again(part)(h)
    return jnp.sum(h * h)


def falls(plan):
    """How often memory falls by more than a tenth of its peak, with a rise of as much between."""
    told = np.array(plan.peak.over_time) / max(plan.peak.over_time)
    count, falling, last = 0, False, told[0]  # the largest since it rises, the least since it falls
    for now in told:
        last = min(last, now) if falling else max(last, now)
        if abs(now - last) > 0.1:
            count, falling, last = count + (not falling), not falling, now
    return count


def test_memory_over_time_is_a_triangle_without_checkpoints():
    plan = adcost.plan(jax.grad(unrolled), W, H)
    assert max(plan.peak.over_time) <= plan.temp
    assert max(plan.peak.over_time) >= 0.98 * plan.temp
    assert falls(plan) == 1


@needs_h100
def test_memory_over_time_is_a_saw_with_checkpoints():
    """On a GPU; the CPU's compiler runs what is to be computed again early, and nothing is saved (study remat)."""
    assert falls(adcost.plan(jax.grad(partial(unrolled, again=jax.checkpoint)), W, H, target=H100)) >= 3


def test_an_output_that_is_an_argument_has_its_name():
    plan = adcost.plan(lambda w, h: (w, jnp.sin(h)), W, H)
    (given,) = kinds(plan, "output as it was given")
    assert (given.operation, given.size) == ("w", 4 * WIDTH**2)
    assert plan.peak.with_a_line > 0.99
    assert CARRY <= plan.peak.made < 1.01 * CARRY
