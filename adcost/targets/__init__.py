"""Where a ruler is laid: a device that is attached, or the compiler of one that is not; and clusters of either.

A compiler says exactly how much memory its program would take on the device, without the device. It says nothing of
time, and no time is ever given for a device that did not run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from math import prod

from adcost.targets.devices import GPUS, TPUS, text_proto

ANY = "any"  # the target of a number that no device has a part in: a count


@dataclass(frozen=True)
class Target:
    """A device, or so many of them, by name: programs run on it if it is ``attached``, or are compiled for it.

    ``environment`` is what a process needs to reach it, ``memory`` the bytes that a program may take of each device. A
    compiler of ``platform`` is asked for ``topology``; ``extra`` is what has to be installed, as (extra of
    pyproject.toml, module).
    """

    name: str
    attached: bool
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    memory: int | None = None
    platform: str = "cpu"
    topology: Mapping[str, str] = field(default_factory=dict, hash=False)
    extra: tuple[str, str] | None = None
    devices: int = 1

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


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def gpu_compiler(name: str, hosts: int = 1, each: int = 1) -> Target:
    """The compiler of a GPU that is not attached; of hosts with so many each."""
    gpu = GPUS[name]
    topology = {"topology": f"{hosts}x{each}x1", "target_config": text_proto(gpu)}
    extra = ("targets-gpu", CUDA_PLUGIN)
    return Target(name, False, CUDA_COMPILER, gpu.memory, "cuda", topology, extra, hosts * each)


def tpu_compiler(name: str, shape: Sequence[int] = ()) -> Target:
    """The compiler of a TPU that is not attached: of one chip, or of a slice of this shape."""
    tpu = TPUS[name]
    chips = shape or tpu.host
    topology = {
        "topology_name": f"{tpu.generation}:{_by(chips)}",
        **({"chip_config_name": tpu.chip} if tpu.chip else {}),
    }
    environment = {**TPU_COMPILER, "TPU_ACCELERATOR_TYPE": f"{tpu.accelerator}-{tpu.cores * prod(chips)}"}
    extra = ("targets-tpu", TPU_PLUGIN)
    return Target(name, False, environment, tpu.memory, "tpu", topology, extra, prod(shape))


TARGETS = {
    "cpu": Target("cpu", attached=True, environment=CPU),
    "cpu-1thread": Target("cpu-1thread", attached=True, environment={**CPU, **ONE_THREAD}),
    "cpu-nommap": Target("cpu-nommap", attached=True, environment={**CPU, **KEPT_HEAP}),
    "gpu": GPU,
    **{name: gpu_compiler(name) for name in GPUS},
    **{name: tpu_compiler(name) for name in TPUS},
}


# Clusters: a device's name, a colon, and how many there are.

HOST = 8  # GPUs at most that share a board, and what JAX's hosts have
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # Cloud TPU's pages "TPU v5e", "TPU v6e"
DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")  # "TPU v4", "TPU v5p"; larger ones are made of cubes of 4 x 4 x 4
CUBES = 96  # at most
CPUS = 256  # devices that a host's processor may be split into


def cluster(name: str) -> Target:
    """A cluster by its name: ``cpu:8``, ``nvidia-h100:8``, ``nvidia-h100:8x32`` (32 hosts of 8), ``tpu-v5e:16x16``.

    Raises
    ------
    ValueError
        If there is no such device, or no such cluster of it.
    """
    device, _, shape = name.partition(":")
    sizes = tuple(map(int, shape.split("x"))) if re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})*", shape) else ()
    if device in GPUS:
        each, hosts = (*sizes, 1)[:2] if len(sizes) in (1, 2) else (0, 0)
        if not 1 <= each <= HOST:
            raise ValueError(
                f"{name} is no cluster of GPUs: give those of a host, at most {HOST}, and hosts: {device}:8x32"
            )
        made = gpu_compiler(device, hosts, each)
    elif device in TPUS:
        if not _is_slice(sizes, TPUS[device].axes):
            known = ", ".join(FLAT if TPUS[device].axes == 2 else (*DEEP, "4x4x4, 4x4x8 and so on"))
            raise ValueError(f"{name} is no slice of TPUs: choose one of {known}")
        made = tpu_compiler(device, sizes)
    elif device == "cpu":
        if len(sizes) != 1 or sizes[0] > CPUS:
            raise ValueError(f"{name} is no cluster of CPUs: give a number of devices up to {CPUS}, as cpu:8")
        made = replace(TARGETS[device], environment={**CPU, "JAX_NUM_CPU_DEVICES": shape}, devices=sizes[0])
    else:
        raise ValueError(f"there are no clusters of {device!r}; choose from: cpu, {', '.join((*GPUS, *TPUS))}")
    return replace(made, name=name)


def _is_slice(sizes: Sequence[int], axes: int) -> bool:
    if axes == 2:
        return _by(sizes) in FLAT
    cubes = [size // 4 for size in sizes if size % 4 == 0]
    return _by(sizes) in DEEP or (
        len(sizes) == len(cubes) == 3 and prod(cubes) <= CUBES and list(sizes) == sorted(sizes)
    )


def device_of(target: str) -> str:
    """The name of a cluster's device, or of the target itself."""
    return target.partition(":")[0]


def named(target: str | Target) -> Target:
    """The target of this name, or the target itself.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists those that are known.
    """
    if isinstance(target, Target):
        return target
    if ":" in target:
        return cluster(target)
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
