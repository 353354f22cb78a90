"""Clusters: their names and meshes, what each device of a sharded program takes and says, schedules on them."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adcost
from adcost.collectives import by_kind
from adcost.targets import named
from adcost.targets.collectives import nbytes

N, WIDTH, ROWS = 16, 64, 256
H100 = named("nvidia-h100:8")
needs_gpu_compiler = pytest.mark.skipif(H100.unavailable() is not None, reason="the compiler of GPUs is not installed")
TARGETS = ["cpu:8", pytest.param("nvidia-h100:8", marks=needs_gpu_compiler)]


@pytest.mark.parametrize(
    ("name", "devices", "asked"),
    [
        ("cpu:8", 8, None),
        ("nvidia-h100:8", 8, "1x8x1"),
        ("nvidia-h100:8x32", 256, "32x8x1"),
        ("nvidia-l4:4x2", 8, "2x4x1"),
        ("tpu-v5e:16x16", 256, "v5e:16x16"),
        ("tpu-v6e:2x4", 8, "v6e:2x4"),
        ("tpu-v5p:4x4x4", 64, "v5p:4x4x4"),
        ("tpu-v4:4x4x8", 128, "v4:4x4x8"),
    ],
)
def test_a_cluster_has_its_name(name, devices, asked):
    target, device = named(name), named(name.partition(":")[0])
    assert (target.name, target.devices, target.memory) == (name, devices, device.memory)
    assert (target.attached, target.platform) == (device.attached, device.platform)
    assert asked is None or asked in target.topology.values()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nvidia-h100:9", "at most 8"),
        ("nvidia-h100:8x", "nvidia-h100:8x32"),
        ("nvidia-h100:8x2x2", "nvidia-h100:8x32"),
        ("nvidia-h100:0", "nvidia-h100:8x32"),
        ("tpu-v5e:3x5", "16x16"),
        ("tpu-v5e:4x4x4", "16x16"),
        ("tpu-v5p:16x16", "4x4x8"),
        ("tpu-v5p:8x4x4", "4x4x8"),
        ("tpu-v5p:3x4x4", "4x4x8"),
        ("cpu:2x4", "cpu:8"),
        ("cpu:1000", "cpu:8"),
        ("nvidia-h1000:8", "nvidia-h100"),
    ],
)
def test_a_cluster_that_cannot_be_gets_one_line(name, said):
    with pytest.raises(ValueError, match=said) as found:
        named(name)
    assert "\n" not in str(found.value)


def test_a_mesh_takes_all_devices():
    assert dict(adcost.mesh("nvidia-h100:8x32", data=32, model=8).shape) == {"data": 32, "model": 8}
    for axes in ({"data": 7}, {"data": 8, "model": 2}, {}, {"data": -8, "model": -1}):
        with pytest.raises(ValueError, match="multiply to 8"):
            adcost.mesh("nvidia-h100:8", **axes)


def test_bytes_of_shapes():
    shapes = {
        "f32[2,3]": 24,
        "bf16[4]": 8,
        "pred[5]": 5,
        "s4[3]": 2,
        "f8e4m3fn[8]": 8,
        "(f32[2], s8[3])": 11,
        "f32[]": 4,
    }
    assert {shape: nbytes(shape) for shape in shapes} == shapes


def shape(mesh, spec, *sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("specs", "kind", "whole"),
    [
        (((None, "d"), ("d", None)), "all-reduce", ROWS * WIDTH),  # the sum over what is divided
        ((("d", None), ("d", None)), "all-gather", WIDTH * WIDTH),  # the weights are gathered
        ((("d", None), (None, None)), None, 0),
    ],
)
def test_the_bytes_of_a_product_are_known(target, specs, kind, whole):
    mesh = adcost.mesh(target, d=8)
    x, w = shape(mesh, specs[0], ROWS, WIDTH), shape(mesh, specs[1], WIDTH, WIDTH)
    rows = NamedSharding(mesh, P() if kind == "all-reduce" else P("d", None))
    once = jax.jit(lambda x, w: x @ w, out_shardings=rows)
    said = by_kind(adcost.plan(once, x, w, target=target).collectives)
    assert said == ({} if kind is None else {kind: 4 * whole})


@pytest.mark.parametrize("target", TARGETS)
def test_collectives_are_counted_as_often_as_they_run_and_know_their_line(target):
    mesh = adcost.mesh(target, d=8)

    def step(x, w):
        return jnp.tanh(x @ w), None

    def f(x, ws):
        return lax.scan(step, x, ws)[0]

    plan = adcost.plan(f, shape(mesh, ("d",), ROWS, WIDTH), shape(mesh, (None, "d"), N, WIDTH, WIDTH), target=target)
    (one,) = plan.collectives
    assert (one.kind, one.times, one.devices) == ("all-gather", N, 8)
    assert one.size == N * WIDTH * WIDTH * 4
    assert one.sent == one.size * 7 / 8 == plan.sent
    assert one.line.function.endswith("step"), "what is gathered is gathered for the product, not for the loop"
    assert one.line.line == step.__code__.co_firstlineno + 1
    assert plan.device_flops == 2 * N * ROWS * WIDTH * WIDTH / 8
    assert plan.arguments == (ROWS * WIDTH + N * WIDTH * WIDTH) * 4 / 8
    assert "sent by each device" in str(plan)
    assert f"{named(target).devices} devices" in str(plan)


def test_a_sharded_plan_is_saved_and_read(tmp_path):
    mesh = adcost.mesh("cpu:8", d=8)
    plan = adcost.plan(lambda x: jnp.sum(x * x), shape(mesh, ("d",), ROWS), target="cpu:8")
    plan.save(tmp_path / "plan.json")
    assert adcost.Plan.load(tmp_path / "plan.json") == plan
    assert plan.collectives[0].kind == "all-reduce"
    assert json.loads((tmp_path / "plan.json").read_text())["mesh"] == {"d": 8}
    assert "all-reduce" in plan._repr_html_()


def test_what_a_compiled_function_was_told_of_shardings_is_kept():
    mesh = adcost.mesh("cpu:8", d=8)
    given, asked = NamedSharding(mesh, P("d")), NamedSharding(mesh, P())
    f = jax.jit(lambda x: 2 * x, in_shardings=given, out_shardings=asked)
    plan = adcost.plan(f, jax.ShapeDtypeStruct((800,), jnp.float32), target="cpu:8")
    assert (plan.arguments, plan.outputs) == (400, 3200)


def test_devices_and_target_must_agree():
    mesh = adcost.mesh("cpu:8", d=8)
    x = shape(mesh, ("d",), 64)
    with pytest.raises(ValueError, match="over 8 devices, cpu has 1"):
        adcost.plan(jnp.sin, x)
    with pytest.raises(ValueError, match=r"over 8 devices, cpu:4 has 4"):
        adcost.plan(jnp.sin, x, target="cpu:4")
    with pytest.raises(ValueError, match=r"no argument is sharded.*adcost\.mesh\('cpu:8', data=8\)"):
        adcost.plan(jnp.sin, jax.ShapeDtypeStruct((64,), jnp.float32), target="cpu:8")
    other = shape(adcost.mesh("cpu:8", a=2, b=4), ("a",), 64)
    with pytest.raises(ValueError, match="several meshes, a 2, b 4 and d 8"):
        adcost.plan(jnp.add, x, other, target="cpu:8")


def layer(w, h):
    explicit = AxisType.Explicit in jax.typeof(w).sharding.mesh.axis_types
    return jnp.tanh(h @ (jax.sharding.reshard(w, P()) if explicit else w))  # there the program itself gathers


def chain(scan, ws, x):
    return jnp.sum(scan(lambda h, w: (layer(w, h), None), x, ws)[0] ** 2)


def with_constants(scan, w, x):
    return jnp.sum(scan(lambda h, _: (layer(w, h), None), x, None, length=N)[0] ** 2)


def block(h, w):
    return h + jnp.tanh(h @ w[0]) @ w[1], None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("scan", "evaluations"),
    [
        (lax.scan, 2 * N),
        (lambda f, h, w: lax.scan(jax.checkpoint(f), h, w), 2 * N),
        *(
            (partial(adcost.scan, schedule=schedule), schedule.taped_evaluations)
            for schedule in (adcost.sqrt(N), adcost.binomial(N, 4), adcost.binomial(N, 2))
        ),
    ],
)
def test_weights_are_gathered_once_an_evaluation_and_sums_are_scattered(target, scan, evaluations):
    """Each evaluation gathers what is fully sharded, and so does each backward step; one right before that is shared.

    Of the last evaluation the second product is not needed; what the step before gathered serves both.
    """
    mesh = adcost.mesh(target, d=8)
    weights = shape(mesh, (None, "d"), N, WIDTH, 4 * WIDTH), shape(mesh, (None, "d"), N, 4 * WIDTH, WIDTH)
    f = jax.grad(lambda w, h: jnp.mean(scan(block, h, w)[0] ** 2))
    plan = adcost.plan(gradient_like(f, weights), weights, shape(mesh, ("d",), ROWS, WIDTH), target=target)
    whole = N * 8 * WIDTH * WIDTH * 4
    said = by_kind(plan.collectives)
    assert said.pop("all-gather") == whole * evaluations / N
    assert plan.outputs == pytest.approx(whole / 8, abs=1024)
    if target == "cpu:8":  # its compiler has no reduce-scatter: it sums whole arrays, and takes a part
        assert said.pop("all-reduce") == whole
    assert said.get("reduce-scatter", whole) == whole
    assert said.get("all-reduce", 0) == 0


def gradient_like(f, weights):
    """The gradient, sharded as the weights are."""
    asked = jax.tree.map(lambda w: w.sharding, weights)
    return lambda w, h: lax.with_sharding_constraint(f(w, h), asked)


SCHEDULES = {
    "store_all": adcost.store_all,
    "sqrt": adcost.sqrt,
    "binomial": partial(adcost.binomial, slots=4),
    "multilevel": partial(adcost.multilevel, levels=2),
    "blocks": lambda n: adcost.blocks(n, 3, 2, 4),
}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("loss", [chain, with_constants])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_gathers_what_was_sharded(schedule, loss, kind):
    """Rows of the carry and of the weights lie on other devices: what each has falls as there are more.

    Zeros made by shape would be whole on every device (jax #16080), and so would the sums of gradients.
    """
    made = partial(loss, partial(adcost.scan, schedule=SCHEDULES[schedule]))
    leading = (N,) if loss is chain else ()

    def plan(devices):
        mesh = AbstractMesh((devices,), ("d",), axis_types=(kind,))
        ws = shape(mesh, (*(None for _ in leading), "d"), *leading, WIDTH, WIDTH)
        return adcost.plan(jax.grad(made), ws, shape(mesh, ("d",), 64 * ROWS, WIDTH), target=f"cpu:{devices}")

    two, eight = plan(2), plan(8)
    whole = WIDTH * WIDTH * 4 * 8  # a gradient of a layer before it is added up, and what is gathered
    assert eight.temp <= two.temp / 4 + whole
    assert eight.outputs == two.outputs / 4  # the gradient is sharded as the weights are
    assert eight.device_flops == two.device_flops / 4


@needs_gpu_compiler
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("loss", [chain, with_constants])
def test_slots_on_the_host_are_sharded_too(loss, kind):
    schedule = adcost.sqrt(N).on_host()
    leading = (N,) if loss is chain else ()

    def plan(devices):
        mesh = AbstractMesh((devices,), ("d",), axis_types=(kind,))
        ws = shape(mesh, (*(None for _ in leading), "d"), *leading, WIDTH, WIDTH)
        f = jax.grad(partial(loss, partial(adcost.scan, schedule=schedule)))
        return adcost.plan(f, ws, shape(mesh, ("d",), 64 * ROWS, WIDTH), target=f"nvidia-h100:{devices}")

    two, eight = plan(2), plan(8)
    assert two.host == (schedule.slots - 1) * 64 * ROWS * WIDTH * 4 / 2
    assert eight.host == two.host / 4
    assert eight.temp <= two.temp / 4 + WIDTH * WIDTH * 4 * 8
