"""What a number depends on besides the program: versions, flags, cores, threads, memory, load."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "equinox", "optax", "pytest-benchmark", "asv")
SETTINGS = ("XLA_FLAGS", "JAX_ENABLE_X64", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def describe(root: Path) -> dict[str, Any]:
    """The recorded environment, as plain JSON values; the sources lie in ``root``. Starts no JAX backend."""
    return {
        **{package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "settings": {name: os.environ.get(name, "") for name in SETTINGS},
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit(root: Path) -> str | None:
    try:
        run = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
