"""All that depends on JAX's internals or on its version; everything else of this package uses public names.

(``checkpointing`` defines primitives of its own, with ``jax.extend.core`` and ``jax.interpreters``.)

The parameters of an equation are JAX's own business: those of ``scan`` changed in 0.11, those of ``remat2`` and others
became attributes of a ``call_hi_primitive`` where ``jax_remat3``, ``jax_scan3`` or ``jax_custom_vjp3`` is set (0.12).
"""

import contextlib
import contextvars
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import wraps
from math import prod
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax._src import config, source_info_util
from jax.extend import core
from jax.interpreters import mlir, partial_eval
from jaxlib.mlir.dialects import sdy

FLAGS = ("jax_remat3", "jax_scan3", "jax_custom_vjp3")  # new implementations that are not yet the default
DEFAULTS = {name: bool(getattr(jax.config, name)) for name in FLAGS if hasattr(jax.config, name)}
_CLOSED: type[Any] = getattr(core, "ClosedJaxpr", core.Jaxpr)  # from JAX 0.11 on the same class as Jaxpr


def in_this_context(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the settings of this thread, for another: JAX's, as a mesh or x64, and ``contextvars``."""
    unset = getattr(config.config_ext, "unset", None)
    every = [one for one in vars(config).values() if isinstance(one, config.config_ext.Config)]
    kept = [(one, value) for one in every if (value := one.get_local()) is not unset]
    variables = contextvars.copy_context()

    def run(*args: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for one, value in kept:
                if isinstance(one, config.State):
                    stack.enter_context(one(value))
                else:
                    stack.callback(one.set_local, one.swap_local(value))
            return variables.copy().run(f, *args)

    return run


def absent_flag(flags: Mapping[str, bool]) -> str | None:
    """Why settings cannot be made: the version of JAX does not know one of them. None if they can."""
    unknown = [name for name in flags if not hasattr(jax.config, name)]
    return f"JAX {jax.__version__} has no {unknown[0]}" if unknown else None


def set_flags(flags: Mapping[str, bool]) -> None:
    """Set those of ``FLAGS`` that this JAX knows: as given, and otherwise as this process began."""
    changed = {name: value for name, value in {**DEFAULTS, **flags}.items() if getattr(jax.config, name) != value}
    for name, value in changed.items():
        jax.config.update(name, value)
    if changed:
        jax.clear_caches()  # what was traced under other settings must not be taken for this


def primitive_name(eqn: Any) -> str:
    """The name of an equation's primitive; of a primitive of the new kind that of its class, as ``Scan3``."""
    hi = eqn.params.get("_prim")
    return eqn.primitive.name if hi is None else type(hi).__name__


def subprograms(eqn: Any) -> list[tuple[Any, tuple[Any, ...], Sequence[Any] | None]]:
    """The programs that an equation runs in its own place, or many times: jaxpr, constants, operands by variable.

    A jaxpr is not closed; operands are None where the program's variables are not the equation's. Of a while loop it is
    none. Programs for derivatives alone are left out.
    """
    name = eqn.primitive.name
    if name == "while":
        return []
    if name == "custom_linear_solve":  # its products and its transposed solve are for derivatives
        solve, lengths = eqn.params["jaxprs"].solve, eqn.params["const_lengths"]
        start = lengths.matvec + lengths.vecmat
        operands = [*eqn.invars[start : start + lengths.solve], *eqn.invars[sum(lengths) :]]
        return [(solve.jaxpr, tuple(solve.consts), _fitting(operands, solve.jaxpr))]
    found = list(_programs_in(_parameters(eqn)))
    if name == "linear_call":
        found = found[:1]
    given = eqn.invars[1:] if name == "cond" else eqn.invars
    return [(jaxpr, consts, _fitting(given, jaxpr)) for jaxpr, consts in found]


def _fitting(operands: Sequence[Any], jaxpr: Any) -> Sequence[Any] | None:
    return operands if len(operands) == len(jaxpr.invars) else None


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, those of the programs inside it too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for program, _ in _programs_in(_parameters(eqn)):
            yield from equations(program)


def called_program(eqn: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """The program that an equation calls, as a jaxpr that is not closed, and its constants; None if it calls none."""
    return next(((jaxpr, consts) for jaxpr, consts, _ in subprograms(eqn)), None)


# What brings a rule of its own for derivatives, which is not that of the program it runs.
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "CustomVJPTraced", "custom_linear_solve")


def called_name(eqn: Any) -> str:
    """The name of the function that an equation calls; of the primitive where it has none."""
    called = called_program(eqn)
    name = getattr(called and called[0].debug_info, "func_name", None) or "<unknown>"
    return primitive_name(eqn) if name.startswith("<") else name


def is_jitted(f: Any) -> bool:
    """Is a function compiled by ``jax.jit``, so that it can be traced with what it donates?"""
    return all(hasattr(f, name) for name in ("trace", "lower", "eval_shape"))


def has_effects(eqn: Any) -> bool:
    """Does an equation do something besides giving its results, as print or write to a reference?"""
    return bool(eqn.effects) or not all(hasattr(v.aval, "shape") for v in eqn.outvars)


def evaluated(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """What an equation gives for these operands."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)  # a dict from JAX 0.10 on
    results = eqn.primitive.bind(*functions, *values, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def live(closed: Any) -> Any:
    """The jaxpr, not closed, of what a program's results need."""
    return partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]


def contracted_size(eqn: Any) -> int:
    """Over how many products a ``dot_general`` sums for each entry of its result."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    return prod(eqn.invars[0].aval.shape[axis] for axis in contracted)


def ragged_columns(eqn: Any) -> int:
    """Columns of a ``ragged_dot_general``'s right side: how often each element of the left one is used."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (_, contracted), (_, batch) = numbers.dot_dimension_numbers
    taken = {*contracted, *batch, *numbers.rhs_group_dimensions}
    return prod(n for axis, n in enumerate(eqn.invars[1].aval.shape) if axis not in taken)


def exponent(eqn: Any) -> int:
    """The power of an ``integer_pow``; 1 of anything else."""
    return int(eqn.params.get("y", 1))


def sorted_axis(eqn: Any) -> int:
    """The axis along which a ``sort`` sorts."""
    return int(eqn.params["dimension"])


def window_size(eqn: Any) -> int:
    """Elements of a window of the ``reduce_window`` and ``select_and_...`` primitives."""
    return prod(eqn.params["window_dimensions"])


def fft_lengths(eqn: Any) -> tuple[int, ...]:
    """The lengths that an ``fft`` transforms."""
    return tuple(eqn.params["fft_lengths"])


def grid(eqn: Any) -> int | None:
    """How often a ``pallas_call`` runs its kernel; None if its grid is not known beforehand."""
    found = eqn.params["grid_mapping"].grid
    return prod(found) if all(isinstance(n, int) for n in found) else None


def shards(eqn: Any) -> int:
    """How many devices run the program of a ``shard_map``, each on its part."""
    sizes, params = dict(eqn.params["mesh"].shape), eqn.params
    manual = params.get("newly_manual_axes") or params.get("manual_axes") or set(sizes) - set(params.get("auto", ()))
    return prod(sizes[axis] for axis in manual)


class Convolution(NamedTuple):
    """Of each spatial axis input, kernel, output, stride, padding, holes in the input, in the kernel; and channels."""

    axes: tuple[tuple[int, int, int, int, tuple[int, int], int, int], ...]
    batch: int  # of the output
    features_out: int
    features_in: int  # that one output feature sees


def convolution(eqn: Any) -> Convolution:
    """The sizes of a ``conv_general_dilated``."""
    params, (left, right) = eqn.params, (v.aval.shape for v in eqn.invars)
    out, numbers = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"]
    lhs, rhs, result = (spec[2:] for spec in (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec))
    axes = tuple(
        (left[a], right[b], out[c], *rest)
        for a, b, c, *rest in zip(
            lhs,
            rhs,
            result,
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    )
    sees = right[numbers.rhs_spec[1]]
    return Convolution(axes, out[numbers.out_spec[0]], out[numbers.out_spec[1]], sees)


def wanted_vectors(eqn: Any) -> tuple[bool, bool]:
    """Does an ``svd`` compute the vectors as well, and all of them?"""
    return bool(eqn.params["compute_uv"]), bool(eqn.params["full_matrices"])


def top(eqn: Any) -> int:
    """How many of each row a ``top_k`` or ``approx_top_k`` takes."""
    return int(eqn.params["k"])


def dense_axes_summed(eqn: Any) -> set[int]:
    """Of a sparse product the axes of the dense side that are contracted or are a batch's."""
    if "dimension_numbers" not in eqn.params:
        return {0}
    (_, contracted), (_, batch) = eqn.params["dimension_numbers"]
    return {*contracted, *batch}


def _never_scan3(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A loop never of the new kind: of that JAX has no reverse mode yet, and under ``jit`` its carry is lost (0.12)."""

    @wraps(loop)
    def run(*args: Any, **options: Any) -> Any:
        state = getattr(config, "scan3", None)
        with contextlib.nullcontext() if state is None else state(False):
            return loop(*args, **options)

    return run


scan = _never_scan3(lax.scan)
fori_loop = _never_scan3(lax.fori_loop)  # of known bounds it is a scan


SCHEDULED = "checkpointed_scan"  # our own primitive: a scan with a schedule
AGAIN = "rematted_computation"  # the scope of what is computed again, as jax.checkpoint names it
SLOTS = "slots_of_a_schedule"  # the scope in which it writes into its slots


def scan_length(eqn: Any) -> int | None:
    """Trips of a scan, of either kind; None if the equation is none."""
    if eqn.primitive.name in ("scan", SCHEDULED):
        return int(eqn.params["length"])
    if primitive_name(eqn) == "Scan3":
        return int(eqn.params["_prim"].length)
    return None


class Scan(NamedTuple):
    """A scan: its body as a closed jaxpr, trips, direction, and how many operands are constants and carry."""

    body: Any
    length: int
    reverse: bool
    consts: int
    carry: int


def scan_parts(eqn: Any) -> Scan:
    """The parts of a ``scan`` equation."""
    params = eqn.params
    if "num_consts" in params:
        sizes = params["num_consts"], params["num_carry"]
    else:
        consts, carry, _ = params["ft_in"].unpack()
        sizes = len(consts), len(carry)
    return Scan(params["jaxpr"], int(params["length"]), bool(params["reverse"]), *sizes)


def is_loop(eqn: Any) -> bool:
    """Is an equation a loop, of whatever kind?"""
    return eqn.primitive.name == "while" or scan_length(eqn) is not None


def scan_consts(eqn: Any) -> int:
    """How many operands of a scan, of either kind, are the same in every trip and come first."""
    # Those of the new kind are not told apart from the references to its carry.
    return 0 if primitive_name(eqn) == "Scan3" else scan_parts(eqn).consts


def carried(eqn: Any) -> slice:
    """Which operands change from trip to trip, of a scan; of what runs once, none."""
    return slice(len(eqn.invars) if scan_length(eqn) is None else scan_consts(eqn), None)


def branches(eqn: Any) -> Sequence[Any]:
    """The closed jaxprs of a ``cond`` equation; its first operand says which is taken."""
    return eqn.params["branches"]


class While(NamedTuple):
    """A while loop: condition and body as closed jaxprs, the operands that are constants of each, and the carry."""

    cond: Any
    cond_consts: Sequence[Any]
    body: Any
    body_consts: Sequence[Any]
    init: Sequence[Any]


def while_parts(eqn: Any) -> While:
    """The parts of a ``while`` equation."""
    params, n = eqn.params, eqn.params["cond_nconsts"]
    m = n + params["body_nconsts"]
    return While(params["cond_jaxpr"], eqn.invars[:n], params["body_jaxpr"], eqn.invars[n:m], eqn.invars[m:])


def scope(eqn: Any) -> str:
    """The ``jax.named_scope`` in which an equation was written, outermost first."""
    return str(eqn.source_info.name_stack)


State = TypeVar("State")


def told_loop(
    low: Any, high: Any, body: Callable[[Any, State], State], init: State, *, trips: int, runs: int = 1
) -> State:
    """A ``fori_loop`` whose bounds are data. Its program says how many trips it makes: so many in so many runs."""

    def inside(i: Any, state: State) -> State:
        with jax.named_scope("body"):  # loops of the body's own have told nothing
            return body(i, state)

    with jax.named_scope(f"{trips}_trips_in_{runs}_runs"):
        return fori_loop(low, high, inside, init)


def told_trips(eqn: Any) -> Fraction | None:
    """How many trips a loop makes on average, if it is a ``told_loop``."""
    return trips_told_in(scope(eqn))


def trips_told_in(scope: str) -> Fraction | None:
    """The same, by the scope in which the loop stands."""
    found = re.search(r"(?<!\w)(\d+)_trips_in_(\d+)_runs\)*$", scope)
    return Fraction(int(found[1]), int(found[2])) if found else None


def _parameters(eqn: Any) -> Mapping[str, Any]:
    """An equation's parameters; a primitive of the new kind keeps them as attributes."""
    hi = eqn.params.get("_prim")
    return eqn.params if hi is None else vars(hi)


def _programs_in(params: Mapping[str, Any]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            program = item.jaxpr if isinstance(item, jax.stages.Traced) else item
            if isinstance(program, _CLOSED):
                yield program.jaxpr, tuple(program.consts)
            elif isinstance(program, core.Jaxpr):
                yield program, ()


Run = Callable[[Any, Sequence[Any]], list[Any]]  # a closed jaxpr on its operands


Rule = Callable[[Any], Callable[[Sequence[Any]], Any] | None]  # of an equation, what runs in its place


def evaluated_program(
    closed: Any, arguments: Sequence[Any], rule: Rule, known: dict[Any, Any] | None = None
) -> list[Any]:
    """What a program gives, equation by equation; an equation for which there is a rule by that.

    ``known`` holds the values of its variables as far as they are there.
    """
    jaxpr, known = closed.jaxpr, {} if known is None else known
    known.update(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *arguments), strict=True))
    return evaluated_equations(jaxpr.eqns, jaxpr.outvars, known, rule)


def evaluated_equations(
    eqns: Sequence[Any], results: Sequence[Any], known: dict[Any, Any], rule: Rule = lambda eqn: None
) -> list[Any]:
    """The same of some equations, from the values of variables that are known."""

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else known[v]

    for eqn in eqns:
        operands, run = list(map(read, eqn.invars)), rule(eqn)
        with _written_where(eqn), eqn.ctx.manager:
            found = evaluated(eqn, operands) if run is None else run(operands)
        known.update(zip(eqn.outvars, found, strict=True))
    return list(map(read, results))


def _written_where(eqn: Any) -> Any:
    """What is bound here has the source line and the scope of an equation."""
    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    return source_info_util.user_context(eqn.source_info.traceback, name_stack=stack)


# What runs a program in its own place, whose derivative is that of the program.
CALLED = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "cond", "shard_map")


def is_called(eqn: Any) -> bool:
    """Can the programs of an equation be run by ``called``?"""
    return eqn.primitive.name in CALLED and (eqn.primitive.name != "shard_map" or "in_specs" in eqn.params)


def called(eqn: Any, operands: Sequence[Any], run: Run) -> list[Any]:
    """What an equation gives if its programs are run by ``run``."""
    params, name = eqn.params, eqn.primitive.name

    def by(program: Any, consts: Sequence[Any] = ()) -> Callable[..., list[Any]]:
        closed = program if hasattr(program, "consts") else _CLOSED(program, consts)
        return lambda *given: run(closed, given)

    if name == "cond":
        return list(lax.switch(operands[0], [by(branch) for branch in branches(eqn)], *operands[1:]))
    if name in ("checkpoint", "remat2"):
        options = {option: params[option] for option in ("prevent_cse", "policy")}
        return list(jax.checkpoint(by(params["jaxpr"]), **options)(*operands))
    if name == "shard_map":
        options = {
            option: params[option] for option in ("mesh", "in_specs", "out_specs", "check_vma") if option in params
        }
        options["axis_names"] = set(params.get("newly_manual_axes", params["mesh"].axis_names))
        return list(jax.shard_map(lambda *given: tuple(by(params["jaxpr"])(*given)), **options)(*operands))
    program = by(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"])
    program.__name__ = params.get("name", name)
    return list(jax.jit(program)(*operands))


INLINED = ("jit", "pjit", "closed_call", "core_call")


def inlined(closed: Any) -> Any:
    """A program with what it calls written out in its place, where that holds a loop or reads outputs of one."""
    by_steps: dict[Any, int] = {}  # of what comes from a loop's outputs and has an entry a step: how many

    def run(program: Any, given: Sequence[Any]) -> list[Any]:
        return evaluated_program(program, given, rule)

    def pass_on(values: Sequence[Any], sources: Sequence[Any]) -> None:
        known = [by_steps.get(v) if isinstance(v, core.Var) else None for v in sources]
        by_steps.update((v, n) for v, n in zip(values, known, strict=True) if n is not None)

    def rule(eqn: Any) -> Callable[[Sequence[Any]], Any] | None:
        read = {by_steps[v] for v in eqn.invars if isinstance(v, core.Var) and v in by_steps}
        counts = read | {scan_length(eqn)}
        shapes = [getattr(v.aval, "shape", ()) for v in eqn.outvars]
        by_steps.update((v, s[0]) for v, s in zip(eqn.outvars, shapes, strict=True) if s and s[0] in counts)
        if eqn.primitive.name not in INLINED or not (read or _holds_a_loop(eqn)):
            return None
        program = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
        program = program if hasattr(program, "consts") else _CLOSED(program, ())
        pass_on(program.jaxpr.invars, eqn.invars)

        def written_out(operands: Sequence[Any]) -> list[Any]:
            found = run(program, operands)
            pass_on(eqn.outvars, program.jaxpr.outvars)
            return found

        return written_out

    return jax.make_jaxpr(lambda *given: run(closed, given))(*closed.in_avals)


def _holds_a_loop(eqn: Any) -> bool:
    return any(scan_length(inside) is not None for program, _, _ in subprograms(eqn) for inside in equations(program))


def with_equations(closed: Any, eqns: Sequence[Any]) -> Any:
    """A program with its equations in another order."""
    return _CLOSED(closed.jaxpr.replace(eqns=list(eqns)), closed.consts)


def is_dropped(v: Any) -> bool:
    """Is a result of an equation asked of nobody?"""
    return type(v).__name__ == "DropVar"


def pruned(closed: Any) -> Any:
    """A program without what its results do not need: outputs of loops that nobody reads, too."""
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return _CLOSED(jaxpr, closed.consts)


def without_unused_inputs(closed: Any) -> tuple[Any, list[bool]]:
    """A program without the inputs that its results do not need, and which it needs."""
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _CLOSED(jaxpr, closed.consts), list(used)


def inputs_used(closed: Any, asked: Sequence[bool]) -> list[bool]:
    """Which inputs of a program these of its results need."""
    return list(partial_eval.dce_jaxpr(closed.jaxpr, list(asked))[1])


def zeros_of(aval: Any) -> Any:
    """Zeros of a type, which inside a ``shard_map`` says along which axes of the mesh devices differ."""
    kind = getattr(aval, "manual_axis_type", None)
    varying = tuple(getattr(aval, "vma", ()) if kind is None else kind.varying)
    if not varying:
        return lax.full_like(aval, 0)
    zeros = jnp.zeros(aval.shape, aval.dtype)
    older: Any = getattr(lax, "pvary", None)
    return lax.pcast(zeros, varying, to="varying") if hasattr(lax, "pcast") else older(zeros, varying)


def ordered_effects(program: Any) -> list[str]:
    """Effects of a program or an equation that bind it to its place: of references, and of calls in their order."""
    names = {type(effect).__name__ for effect in program.effects}
    return sorted(name for name in names if name.startswith(("Ordered", "Read", "Write", "Accum")))


def many_on_host(count: int, value: Any) -> Any:
    """An array in the host's memory for so many values like this one; what is in it, nobody knows."""
    if not hasattr(jax, "memory"):
        raise NotImplementedError(f"JAX {jax.__version__} has no host memory for slots: take a later one")
    # A broadcast is sharded as what is put into it; ``lax.empty`` would be whole on every device (JAX 0.10).
    said = jax.typeof(value).sharding
    sharding = None if said.mesh.empty else said.update(spec=jax.P(None, *said.spec))
    return lax.broadcast(on_host(jnp.zeros((), value.dtype)), (count, *value.shape), out_sharding=sharding)


def on_host(value: Any) -> Any:
    """The value in the host's memory, as far as its program knows of two."""
    return jax.device_put(value, jax.memory.Space.Host)


def on_device(value: Any) -> Any:
    """The value in the device's memory."""
    return jax.device_put(value, jax.memory.Space.Device)


def exported(
    run: Callable[..., Any], shapes: Sequence[Any], results: Any, platform: str, unknown: Sequence[Any]
) -> Any:
    """A function of flat arguments, to be compiled in another process; some primitives give what nobody knows.

    ``results`` are the shardings of its results, or None.
    """
    rules = tuple((primitive, _lowered_to_something) for primitive in unknown)
    jitted = jax.jit(run, out_shardings=results)
    with whole_call_paths():
        made = export.export(jitted, platforms=[platform], _override_lowering_rules=rules)(*shapes)
    return replace(made, unordered_effects=())  # those that are left had been of these primitives


def _lowered_to_something(ctx: Any, *operands: Any, **_: Any) -> Any:
    """Zeros, behind a barrier so that no compiler knows them, when the operands are there."""

    def something(*given: Any) -> list[Any]:
        return lax.optimization_barrier((given, [jnp.zeros(a.shape, a.dtype) for a in ctx.avals_out]))[1]

    return mlir.lower_fun(something, multiple_results=True)(ctx, *operands)


# Meshes and shardings.


def axes_alone(mesh: Any) -> jax.sharding.AbstractMesh:
    """A mesh without its devices."""
    return mesh.abstract_mesh if isinstance(mesh, jax.sharding.Mesh) else mesh


def in_mesh(mesh: jax.sharding.AbstractMesh | None) -> Any:
    """What is traced in this context may name the axes of a mesh; one that the user has set stays."""
    known = jax.sharding.get_abstract_mesh()
    if mesh is None or not known.empty:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh)


def asked_shardings(stage: Any) -> tuple[list[Any], list[Any]]:
    """The shardings that ``jax.jit`` was told of a traced function's arguments and results; None where it was not."""
    params = getattr(stage, "_params", {})
    asked = (params.get(name, ()) for name in ("in_shardings", "out_shardings"))
    named = jax.sharding.NamedSharding
    given, results = ([s if isinstance(s, named) else None for s in some] for some in asked)
    return given, results


def without_devices(closed: Any) -> Any:
    """A program whose shardings are over axes alone, wherever their devices are: it may run on others."""

    def stripped(value: Any) -> Any:
        if isinstance(value, jax.sharding.NamedSharding) and isinstance(value.mesh, jax.sharding.Mesh):
            return jax.sharding.NamedSharding(value.mesh.abstract_mesh, value.spec, memory_kind=value.memory_kind)
        if isinstance(value, jax.sharding.Mesh):
            return value.abstract_mesh
        if isinstance(value, _CLOSED):
            return _CLOSED(of_jaxpr(value.jaxpr), value.consts)
        if isinstance(value, core.Jaxpr):
            return of_jaxpr(value)
        return type(value)(map(stripped, value)) if type(value) in (tuple, list) else value

    def of_jaxpr(jaxpr: Any) -> Any:
        eqns = [eqn.replace(params={name: stripped(value) for name, value in eqn.params.items()}) for eqn in jaxpr.eqns]
        return jaxpr.replace(eqns=eqns)

    return stripped(closed)


_GROUPS = "jax_use_shardy_partitioner"  # a setting of JAX while there was another partitioner


def lie_alike(ctx: Any, one: Any, other: Any) -> None:
    """Tell the partitioner, while a program is lowered, to shard two of its values in the same way."""
    devices = getattr(ctx.module_context.axis_context, "num_devices", 1) or 1
    if devices > 1 and getattr(jax.config, _GROUPS, True):
        group = ctx.module_context.new_channel()  # a number that nothing else of this program has
        for value in (one, other):
            sdy.sharding_group(value, group)


def line(eqn: Any) -> str:
    """Where an equation was written: file, line, function."""
    return str(source_info_util.summarize(eqn.source_info))


def whole_call_paths() -> Any:
    """What is lowered in this context has the whole call path of each operation; JAX keeps ten places."""
    return config.traceback_in_locations_limit(1000)


def call_paths(jaxpr: Any) -> Iterator[list[tuple[str, int, str]]]:
    """From where the equations of a program were written, each path once: file, line, function, innermost first."""
    for traceback in dict.fromkeys(eqn.source_info.traceback for eqn in equations(jaxpr)):
        frames = source_info_util.user_frames(traceback)
        yield [(frame.file_name, frame.start_line, frame.function_name) for frame in frames]


def no_cotangent(value: Any) -> Any:
    """A cotangent that is zero, as JAX has it: of an integer or a key it is an array of float0."""
    aval = jax.typeof(value).to_tangent_aval()
    return np.zeros(aval.shape, aval.dtype) if aval.dtype == jax.dtypes.float0 else jnp.zeros(aval.shape, aval.dtype)


def first_line(error: BaseException) -> str:
    """What an exception says, in its first line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
