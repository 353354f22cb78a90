"""What a number depends on besides the program: versions, flags, cores, threads, memory, load."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adcost.targets import CORES

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "equinox", "optax", "pytest-benchmark", "asv")
# Variables that can change a number are recorded: those of JAX, of XLA and its devices, of threads and of allocators.
PREFIXES = (
    *("JAX_", "XLA_", "LIBTPU_", "TPU_", "CUDA_", "NVIDIA_", "EQX_", "TF_XLA_", "TF_ENABLE_ONEDNN"),
    *("OMP_", "KMP_", "GOMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_", "MALLOC_", "TCMALLOC_"),
)
NAMES = ("LD_PRELOAD", "GLIBC_TUNABLES", "NPROC", "PYTHONMALLOC", "PYTHONOPTIMIZE", "PYTHONHASHSEED")
SAME = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_TRACEBACK_FILTERING")  # which probes set, or that change no number
# Those that would make a number that of something else are taken away from probes: what was compiled before is compiled
# in no time, what is not compiled or checks itself takes more, what writes its programs down takes longer.
TAKEN_AWAY = (
    *("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_EXPECT_PGLE"),
    *("JAX_ENABLE_PGLE", "JAX_PGLE_PROFILING_RUNS", "JAX_RAISE_PERSISTENT_CACHE_ERRORS"),
    *("JAX_DISABLE_JIT", "JAX_DEBUG_NANS", "JAX_DEBUG_INFS", "JAX_DEBUG_KEY_REUSE", "JAX_CHECK_TRACER_LEAKS"),
    *("JAX_ENABLE_CHECKS", "JAX_LOG_COMPILES", "JAX_EXPLAIN_CACHE_MISSES", "JAX_NO_TRACING", "JAX_TRANSFER_GUARD"),
    *("JAX_DUMP_IR_TO", "JAX_DUMP_JAXPR_TO", "JAX_DUMP_IR_MODES", "JAX_NUMPY_RANK_PROMOTION"),
    *(CORES, "JAX_NUMPY_DTYPE_PROMOTION", "JAX_DEFAULT_DEVICE", "JAX_DISALLOW_MESH_CONTEXT_MANAGER"),
)


def describe(root: Path) -> dict[str, Any]:
    """The recorded environment, as plain JSON values; the sources lie in ``root``. Starts no JAX backend."""
    return {
        **{package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "settings": settings(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load at start": os.getloadavg()[0],
        "commit": _commit(root),
    }


def fingerprint(*folders: Path) -> str:
    """A hash of the library's and these folders' sources, versions and machine: where equal, numbers compare."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in (PACKAGE, *folders) for path in folder.rglob("*.py")):
        digest.update(path.read_bytes())
    facts = describe(PACKAGE)
    digest.update("\0".join(str(facts[key]) for key in (*PACKAGES, "cpu", "cores", "memory", "settings")).encode())
    return digest.hexdigest()[:12]


def settings() -> dict[str, str]:
    """The variables of this process that can change a number."""
    kept = (name for name in os.environ if name.startswith(PREFIXES) or name in NAMES)
    return {name: os.environ[name] for name in sorted(kept) if name not in (*SAME, *TAKEN_AWAY)}


def undisturbed() -> dict[str, str]:
    """This process's environment without what would make a number that of something else."""
    return {name: value for name, value in os.environ.items() if name not in TAKEN_AWAY}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit(root: Path) -> str | None:
    """The commit of a folder; None where git knows nothing of its files, whatever repository they lie in."""

    def said(*command: str) -> str:
        run = ["git", "-C", str(root), *command]
        return subprocess.run(run, capture_output=True, text=True, check=True, errors="replace").stdout.strip()

    try:
        return said("describe", "--always", "--dirty", "--abbrev=12") if said("ls-files", ".") else None
    except (OSError, subprocess.CalledProcessError):
        return None
