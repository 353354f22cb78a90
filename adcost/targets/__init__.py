"""Where a ruler is laid: a device that is attached, or the compiler of one that is not.

A compiler says exactly how much memory its program would take on the device, without the device. It says nothing of
time, and no time is ever given for a device that did not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from adcost.targets.devices import GPUS, TPUS, text_proto

ANY = "any"  # the target of a number that no device has a part in: a count


@dataclass(frozen=True)
class Target:
    """A device, by name: programs run on it if it is ``attached``, otherwise they are compiled for it.

    ``environment`` is what a process needs to reach it, ``memory`` the bytes that a program may take. A compiler is
    asked for ``topology`` of ``platform``, with ``description`` of the device where it does not know it by name;
    ``extra`` is what has to be installed, as (extra of pyproject.toml, module).
    """

    name: str
    attached: bool
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    memory: int | None = None
    platform: str = "cpu"
    topology: str = ""
    description: str = ""
    extra: tuple[str, str] | None = None

    def unavailable(self) -> str | None:
        """Why nothing can be compiled for it here; None if its compiler is installed."""
        return not_installed(self.extra)


def not_installed(extra: tuple[str, str] | None) -> str | None:
    """What to do for an optional dependency, as (extra of pyproject.toml, module); None if it is there."""
    try:
        there = extra is None or find_spec(extra[1]) is not None
    except ModuleNotFoundError:  # its parent package is not there
        there = False
    return None if there or extra is None else f"{extra[1]} is not installed: pip install -e '.[{extra[0]}]'"


# With a plugin installed JAX looks for its device unless it is told where to run; a compiler needs none.
# Autotuning would time kernels on the device that is not there. A product of float32 is one of float32 everywhere: by
# default a GPU takes fewer bits, and a deep chain's gradient would fail its check.
CPU = {"JAX_PLATFORMS": "cpu"}
FULL_PRECISION = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# XLA's own products and those of the BLAS below LAPACK have threads of their own; no flag bounds all of XLA's, but it
# starts one for each core that the process may run on.
CORES = "PROBE_CORES"
ONE_THREAD = {CORES: "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# glibc's allocator, told never to map memory for one request nor to return any: pages stay touched. By default it maps
# what is larger than a threshold that grows to 32 MiB at most, and each such request meets fresh pages. One arena, for
# the others are made of pieces of 64 MiB, and what is larger would be mapped after all.
KEPT_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**46), "MALLOC_ARENA_MAX": "1"}
CUDA_COMPILER = {
    **CPU,
    **FULL_PRECISION,
    "CUDA_VISIBLE_DEVICES": "-1",
    "XLA_FLAGS": "--xla_gpu_autotune_level=0",
}
# A compiler needs no TPU for itself, so that several processes may have one.
TPU_COMPILER = {
    **CPU,
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

CUDA_PLUGIN, TPU_PLUGIN = "jax_plugins.xla_cuda12", "libtpu"
GPU = Target("gpu", True, {"JAX_PLATFORMS": "cuda", **FULL_PRECISION}, platform="cuda", extra=("cuda", CUDA_PLUGIN))


def gpu_compiler(name: str) -> Target:
    """The compiler of a GPU that is not attached."""
    gpu = GPUS[name]
    extra = ("targets-gpu", CUDA_PLUGIN)
    return Target(name, False, CUDA_COMPILER, gpu.memory, "cuda", "1x1x1", text_proto(gpu), extra)


def tpu_compiler(name: str) -> Target:
    """The compiler of a TPU that is not attached."""
    topology, accelerator, memory = TPUS[name]
    environment = {**TPU_COMPILER, "TPU_ACCELERATOR_TYPE": accelerator}
    return Target(name, False, environment, memory, "tpu", topology, extra=("targets-tpu", TPU_PLUGIN))


TARGETS = {
    "cpu": Target("cpu", attached=True, environment=CPU),
    "cpu-1thread": Target("cpu-1thread", attached=True, environment={**CPU, **ONE_THREAD}),
    "cpu-nommap": Target("cpu-nommap", attached=True, environment={**CPU, **KEPT_HEAP}),
    "gpu": GPU,
    **{name: gpu_compiler(name) for name in GPUS},
    **{name: tpu_compiler(name) for name in TPUS},
}


def named(target: str | Target) -> Target:
    """The target of this name, or the target itself.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists those that are known.
    """
    if isinstance(target, Target):
        return target
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; choose from: {', '.join(TARGETS)}")
    return TARGETS[target]


def parse_targets(names: str) -> list[Target]:
    """The targets in a comma-separated list, each once.

    Raises
    ------
    ValueError
        If a name is unknown; the message lists those that are known.
    """
    return [named(name) for name in dict.fromkeys(names.split(","))]
