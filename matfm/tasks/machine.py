"""What this machine has: cores, memory, disk, accelerators, and how fast it multiplies."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from matfm.tasks.streaming.parallel import available_cores

_CGROUP = Path("/sys/fs/cgroup")
_WIDTHS = {"cpu": 512, "cuda": 4096, "mps": 2048}
"""Width of the measured matrices: large enough for the device to be busy, small enough for a slow one."""


def cores() -> dict[str, Any]:
    """Cores of the machine, those that this process may use, a container's quota (cores, or None), and the load."""
    return {
        "machine": os.cpu_count() or 1,
        "available": available_cores(),
        "quota": _cpu_quota(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def accelerators() -> dict[str, Any]:
    """Whether CUDA and MPS are there, the CUDA version that torch was built for, and each GPU's name and GiB."""
    gpus = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(number)
            gpus.append({"name": known.name, "memory_gib": round(known.total_memory / 2**30, 1)})
    return {
        "cuda": torch.cuda.is_available(),
        "cuda_build": torch.version.cuda,
        "gpus": gpus,
        "mps": torch.backends.mps.is_available(),
    }


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of square matrix products, measured for about so many seconds after a first one that does not count."""
    width = _WIDTHS[device.type]
    left, right = (torch.ones(width, width, dtype=dtype, device=device) for _ in range(2))
    _product(left, right)
    started, products = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or products == 0:
        _product(left, right)
        products += 1
    return 2 * width**3 * products / passed / 1e9


def memory() -> dict[str, float | None]:
    """GiB that a new process can still get, within a container's limit, and in all; None where that is unknown."""
    found = _meminfo()
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    free, total = found.get("MemAvailable"), found.get("MemTotal")
    if limit is not None and used is not None:
        free = limit - used if free is None else min(free, limit - used)
        total = limit if total is None else min(total, limit)
    return {"free_gib": _gib(free), "total_gib": _gib(total)}


def disk_free_gib(folder: Path) -> float:
    """GiB free where a folder is or would be."""
    return round(shutil.disk_usage(_existing(folder)).free / 2**30, 1)


def writable(folder: Path) -> str | None:
    """None if files can be made in a folder, or in the next one above it that there is; else why not."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(b"matfm")
    except OSError as error:
        return error.strerror or str(error)
    return None


def size_mib(folder: Path) -> float:
    """MiB of all files in a folder; 0 if there is none."""
    sizes = [os.lstat(Path(root) / name).st_size for root, _, names in os.walk(folder) for name in names]
    return round(sum(sizes) / 2**20, 1)


def _product(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.mm(left, right)
    if left.device.type == "cuda":
        torch.cuda.synchronize()
    elif left.device.type == "mps":
        torch.mps.synchronize()


def _existing(folder: Path) -> Path:
    """The folder, or the next one above it that there is."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _cpu_quota() -> float | None:
    try:
        quota, period = (_CGROUP / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else round(int(quota) / int(period), 2)


def _meminfo() -> dict[str, int]:
    """Bytes by name, of Linux; elsewhere nothing."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):  # `max` is no limit
        return None


def _gib(value: int | None) -> float | None:
    return None if value is None else round(value / 2**30, 1)
