"""What is alive at the peak: the lines, the kinds and the sizes of programs whose truth is known."""

import inspect
import json

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import adcost
from adcost import TARGETS
from adcost.targets.alive import assignment, origin
from adcost.targets.listing import read

STEPS, ROWS, WIDTH = 50, 128, 64
CARRY = ROWS * WIDTH * 4
W, H = jax.ShapeDtypeStruct((WIDTH, WIDTH), "float32"), jax.ShapeDtypeStruct((ROWS, WIDTH), "float32")
TOLD = [name for name in ("cpu", "nvidia-h100") if TARGETS[name].unavailable() is None]


def step(h, w):
    y = jnp.tanh(h @ w)
    return jnp.sin(y)


def loss(w, h):
    return jnp.sum(lax.scan(lambda h, _: (step(h, w), None), h, None, length=STEPS)[0])


def line_of(function, text):
    """The number of the line of a function in which a text stands."""
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


@pytest.fixture(scope="module", params=TOLD)
def plan(request):
    with jax.enable_x64(False):
        return adcost.plan(jax.grad(loss), W, H, target=request.param)


def test_residuals_have_the_line_of_the_value_and_not_of_the_scan(plan):
    found = [row for row in plan.peak.rows if row.what == "residual of a loop"]
    assert {row.line.line for row in found} == {line_of(step, "tanh"), line_of(step, "sin")}
    assert all(row.line.file == __file__ for row in found)
    assert {row.shape for row in found} == {f"f32[{STEPS},{ROWS},{WIDTH}]"}
    # JAX 0.10.2 keeps tanh, sin and their derivatives; 0.12 the carry and what both are multiplied by.
    assert sum(row.count for row in found) == (4 if jax.__version__ == "0.10.2" else 3)
    assert sum(row.size for row in found) == sum(row.count for row in found) * STEPS * CARRY
    assert any("loss" in frame.function for frame in found[0].path)


def test_rows_are_the_plan(plan):
    assert sum(row.size for row in plan.peak.rows) == pytest.approx(plan.total, rel=0.02)
    assert plan.peak.with_a_line > 0.95
    sizes = [row.size for row in plan.peak.rows]
    assert sizes == sorted(sizes, reverse=True)


def test_arguments_and_outputs_are_named(plan):
    kinds = {row.what: row for row in plan.peak.rows if row.what in ("argument", "output")}
    assert kinds["output"].size == WIDTH * WIDTH * 4
    assert sum(row.size for row in plan.peak.rows if row.what == "argument") == plan.arguments


def test_a_printed_plan_has_the_five_largest_rows(plan):
    text = str(plan)
    assert "test_peak.py" in text
    assert "residual of a loop" in text
    assert len(plan.peak.rows) > 5
    assert text.endswith("more")
    assert json.loads(json.dumps(plan.peak.json()))["rows"][0]["path"][0]["file"] == __file__


def test_nested_schedules_keep_what_they_say():
    """Blocks keep a carry a slot, and the residuals of one block."""
    with jax.enable_x64(False):
        ways = adcost.checkpointed(loss, adcost.sqrt)
        vanilla, saving = (adcost.plan(jax.grad(f), W, H) for f in (loss, ways))
    assert saving.peak.rows[0].size < vanilla.peak.rows[0].size
    assert sum(row.size for row in saving.peak.rows) == pytest.approx(saving.total, rel=0.02)


def test_a_listing_is_read_as_it_is_written():
    text = """HloModule m
FileNames
1 "/a.py"
FunctionNames
1 "f"
2 "g"
FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=2}
2 {file_name_id=1 function_name_id=2 line=7 end_line=7 column=1 end_column=2}
StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}

%inner (p: f32[4]) -> f32[2,4] {
  %p = f32[4]{0} parameter(0)
  ROOT %wide = f32[2,4]{1,0} broadcast(%p), dimensions={1}, metadata={op_name="jit(f)/broadcast" stack_frame_id=2}
}

ENTRY %main (x: f32[4]) -> f32[2,4] {
  %x = f32[4]{0} parameter(0), metadata={op_name="x"}
  ROOT %made = f32[2,4]{1,0} fusion(%x), kind=kLoop, calls=%inner
}
"""
    listing = read(text)
    assert listing.root("main").called == {"calls": "inner"}
    assert [(frame.line, frame.function) for frame in listing.path(2)] == [(3, "f"), (7, "g")]
    buffers = "allocation 0: size 32, preallocated-temp:\n value: <1 made @0> (size=32,offset=0): f32[2,4]{1,0}\n"
    plan = assignment(buffers, "  BufferLiveRange:\n    made{}:1-2\n")
    (value,) = plan.at(1)
    assert list(plan.over_time()) == [0, 32, 32]
    assert origin(listing, value).instruction.name == "wide"


def test_an_element_of_a_tuple_is_the_same_in_both_spellings():
    """JAX 0.12's XLA writes %loop#1."""
    text = """HloModule m

%body (p: (f32[4], f32[9,4])) -> (f32[4], f32[9,4]) {
  %p = (f32[4]{0}, f32[9,4]{1,0}) parameter(0)
  %grown = f32[4]{0} sine(%p#0)
  %part = f32[1,4]{1,0} bitcast(%p#0)
  %stack = f32[9,4]{1,0} dynamic-update-slice(%p#1, %part)
  ROOT %step = (f32[4]{0}, f32[9,4]{1,0}) tuple(%grown, %stack)
}

ENTRY %main (x: (f32[4], f32[9,4])) -> (f32[4], f32[9,4]) {
  %x = (f32[4]{0}, f32[9,4]{1,0}) parameter(0)
  ROOT %loop = (f32[4]{0}, f32[9,4]{1,0}) while(%x), condition=%body, body=%body
}
"""
    older = text.replace("%grown =", "%h = f32[4]{0} get-tuple-element(%p), index=0\n  %grown =").replace(
        "(%p#0)", "(%h)"
    )
    (value,) = assignment(
        "allocation 0: size 144, preallocated-temp:\n value: <1 loop{1} @0> (size=144,offset=0): f32[9,4]{1,0}\n",
        "    loop{1}:0-1\n",
    ).values
    for spelling in (text, older):
        found = origin(read(spelling), value)
        assert (found.instruction.name, found.steps) == ("grown", 9)


def test_places_that_values_share_are_counted_once_and_only_while_they_live():
    lines = ["allocation 0: size 300, preallocated-temp:"]
    lines += [
        f" value: <{i} {name} @0> (size={size},offset={offset}): f32[1]"
        for i, (name, size, offset) in enumerate([("a", 100, 0), ("b", 60, 0), ("c", 200, 100)])
    ]
    plan = assignment("\n".join(lines), "    a{}:1-2\n    b{}:2-4\n    c{}:3-3\n")
    assert list(plan.over_time()) == [0, 100, 100, 260, 60]
    assert [value.name for value in plan.at(3)] == ["c", "b"]
