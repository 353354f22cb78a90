"""Where a ruler is laid: a device that is attached, or the compiler of one that is not.

A compiler says exactly how much memory its program would take on the device, without the device. It says nothing of
time, and no time is ever given for a device that did not run.

References
----------
GPUs: the descriptions of real devices that XLA keeps for its own tests (openxla/xla,
``xla/backends/gpu/target_config/specs/{v100,a100_sxm_80,h100_sxm,h200,b200}.txtpb``); the L4 by NVIDIA's data sheet
(58 multiprocessors, 24 GB, 300 GB/s, 48 MB of L2) and the CUDA C++ Programming Guide, "Technical Specifications per
Compute Capability", column 8.9. TPUs: memory of a chip by Google Cloud's pages "TPU v4", "v5e", "v5p", "v6e".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

ANY = "any"  # the target of a number that no device has a part in: a count
GIB = 2**30


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
        if self.extra is None or _installed(self.extra[1]):
            return None
        return f"{self.extra[1]} is not installed: pip install -e '.[{self.extra[0]}]'"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not there
        return False


@dataclass(frozen=True)
class Gpu:
    """What XLA's compiler wants to know of an NVIDIA GPU. Sizes in bytes, bandwidth in bytes a second."""

    title: str
    capability: tuple[int, int]
    multiprocessors: int
    fpus: int  # of single precision, a multiprocessor
    threads: int  # at most, a multiprocessor
    shared: int  # memory, a multiprocessor
    shared_optin: int  # memory, a block at most
    memory: int
    bandwidth: int
    l2: int
    clock: float  # GHz


GPUS = {
    "nvidia-v100": Gpu(
        "Tesla V100-SXM2-16GB", (7, 0), 80, 64, 2048, 98304, 98304, 16935682048, 898048000000, 6291456, 1.53
    ),
    "nvidia-a100": Gpu(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 2048, 167936, 166912, 85100068864, 2039040000000, 41943040, 1.41
    ),
    "nvidia-h100": Gpu(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 2048, 233472, 232448, 84942979072, 3352320000000, 52428800, 1.98
    ),
    "nvidia-h200": Gpu(
        "NVIDIA H200 141GB HBM3e", (9, 0), 132, 128, 2048, 233472, 232448, 151397597184, 4800000000000, 52428800, 1.98
    ),
    "nvidia-b200": Gpu(
        "NVIDIA B200", (10, 0), 148, 128, 2048, 233472, 232448, 191514411008, 7672320000000, 132644864, 1.965
    ),
    "nvidia-l4": Gpu("NVIDIA L4", (8, 9), 58, 128, 1536, 102400, 101376, 24 * 10**9, 300096000000, 50331648, 2.04),
}
TPUS = {  # topology, accelerator, memory of a chip
    "tpu-v4": ("v4:2x2x1", "v4-8", 32 * GIB),
    "tpu-v5e": ("v5e:2x2", "v5litepod-4", 16 * GIB),
    "tpu-v5p": ("v5p:2x2x1", "v5p-8", 95 * GIB),
    "tpu-v6e": ("v6e:2x2", "v6e-4", 32 * GIB),
}


def text_proto(gpu: Gpu) -> str:
    """A GPU as XLA's ``GpuTargetConfigProto``, in text format."""
    major, minor = gpu.capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth}
  l2_cache_size: {gpu.l2}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {gpu.memory}
  shared_memory_per_block_optin: {gpu.shared_optin}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{gpu.title}"
"""


# With a plugin installed JAX looks for its device unless it is told where to run; a compiler needs none.
# Autotuning would time kernels on the device that is not there. A product of float32 is one of float32 everywhere: by
# default a GPU takes fewer bits, and a deep chain's gradient would fail its check.
CPU = {"JAX_PLATFORMS": "cpu"}
FULL_PRECISION = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# XLA's own products and those of the BLAS below LAPACK have threads of their own; no flag bounds all of XLA's, but it
# starts one for each core that the process may run on.
CORES = "PROBE_CORES"
ONE_THREAD = {CORES: "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
CUDA_COMPILER = {
    **CPU,
    **FULL_PRECISION,
    "CUDA_VISIBLE_DEVICES": "-1",
    "XLA_FLAGS": "--xla_gpu_autotune_level=0",
}
TPU_COMPILER = {**CPU, "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}

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
    "gpu": GPU,
    **{name: gpu_compiler(name) for name in GPUS},
    **{name: tpu_compiler(name) for name in TPUS},
}


def parse_targets(names: str) -> list[Target]:
    """The targets in a comma-separated list.

    Raises
    ------
    ValueError
        If a name is unknown; the message lists those that are known.
    """
    unknown = [name for name in names.split(",") if name not in TARGETS]
    if unknown:
        raise ValueError(f"unknown target {unknown[0]!r}; choose from: {', '.join(TARGETS)}")
    return [TARGETS[name] for name in dict.fromkeys(names.split(","))]
