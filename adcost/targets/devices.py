"""The devices whose compilers can be asked without them, as their compilers want them described.

References
----------
GPUs: the descriptions of real devices that XLA keeps for its own tests (openxla/xla,
``xla/backends/gpu/target_config/specs/{v100,a100_sxm_80,h100_sxm,h200,b200}.txtpb``); the L4 by NVIDIA's data sheet
(58 multiprocessors, 24 GB, 300 GB/s, 48 MB of L2) and the CUDA C++ Programming Guide, "Technical Specifications per
Compute Capability", column 8.9. TPUs: memory of a chip by Google Cloud's pages "TPU v4", "v5e", "v5p", "v6e".
"""

from dataclasses import dataclass

GIB = 2**30


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


@dataclass(frozen=True)
class Tpu:
    """What XLA's compiler wants to know of a TPU. Memory of a chip, in bytes."""

    generation: str
    accelerator: str  # what a name of a slice begins with
    cores: int  # of a chip, as those names count them
    axes: int  # of the torus
    memory: int
    chip: str = ""  # how its compiler is to see a chip: a v4 otherwise as two devices

    @property
    def host(self) -> tuple[int, ...]:
        """The chips of one host."""
        return (2, 2, 1)[: self.axes]


TPUS = {
    "tpu-v4": Tpu("v4", "v4", 2, 3, 32 * GIB, "megacore"),
    "tpu-v5e": Tpu("v5e", "v5litepod", 1, 2, 16 * GIB),
    "tpu-v5p": Tpu("v5p", "v5p", 2, 3, 95 * GIB),
    "tpu-v6e": Tpu("v6e", "v6e", 1, 2, 32 * GIB),
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
