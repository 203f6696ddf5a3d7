"""`matfm doctor`: what is installed, what the machine can do, and what stands in the way, each with a remedy."""

from __future__ import annotations

import importlib
import json
import platform
import re
import struct
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from matfm.core.bundled import MODEL_FILE, WEIGHTS, bundled_names
from matfm.errors import MatfmError

ESSENTIAL = {
    "torch": "torch",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "rdkit": "rdkit.Chem",
    "selfies": "selfies",
    "pymatgen": "pymatgen.core",
    "pyarrow": "pyarrow",
    "matplotlib": "matplotlib",
}
"""Package to the module that shows whether it works."""
OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY_GIB, LITTLE_DISK_GIB = 2.0, 2.0
_FOR_DEVELOPERS = frozenset({"test", "docs", "dev"})
_REQUIREMENT = re.compile(r"""([A-Za-z0-9_.-]+).*extra\s*==\s*["']([A-Za-z0-9_-]+)["']""")


@dataclass(frozen=True)
class DoctorConfig:
    """`matfm doctor`."""

    out: str = "."
    """Folder that runs are to be written in."""
    cache: str | None = None
    """Folder of fetched files; None for the user's cache."""
    seconds: float = 0.5
    """Time to measure matrix products of each number format."""

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise MatfmError(f"seconds is {self.seconds}; it must be positive")


@dataclass(frozen=True)
class Problem:
    """Something that stands in the way."""

    what: str
    remedy: str
    essential: bool = False
    """Whether matfm cannot work with it."""


def run(config: DoctorConfig) -> dict[str, Any]:
    """Look at everything; returns the summary. `healthy` is whether nothing essential is broken."""
    versions, problems = _versions()
    summary: dict[str, Any] = {"versions": versions, "extras": extras()}
    if "torch" in versions:
        problems += _machine(summary, config)
    weights = {name: weights_fault(WEIGHTS / name / MODEL_FILE) for name in bundled_names()}
    summary["weights"] = {name: fault or "whole" for name, fault in weights.items()}
    problems += _of_weights(weights)
    summary["problems"] = [vars(problem) for problem in problems]
    summary["healthy"] = not any(problem.essential for problem in problems)
    return summary


def extras() -> dict[str, dict[str, Any]]:
    """Extra -> whether all of it is installed, versions (None where missing), and the command that installs it."""
    found: dict[str, dict[str, Any]] = {}
    for requirement in metadata.requires("matfm") or ():
        match = _REQUIREMENT.match(requirement)
        if match is None or match[2] in _FOR_DEVELOPERS:
            continue
        entry = found.setdefault(match[2], {"installed": True, "packages": {}})
        version = _version(match[1])
        entry["packages"][match[1]] = version
        if version is None:
            entry |= {"installed": False, "install": f"pip install 'matfm[{match[2]}]'"}
    return found


def weights_fault(path: Path) -> str | None:
    """What is wrong with a safetensors file by its header and length; None if nothing is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                return f"its header should have {length} bytes and the file has {size}"
            header = json.loads(file.read(length))
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    except OSError as error:
        return error.strerror or str(error)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        return "its header cannot be read"
    return None if 8 + length + end == size else f"it should have {8 + length + end} bytes and has {size}"


def readable(summary: dict[str, Any]) -> str:
    """The summary as a table for a terminal, and the problems with their remedies."""
    rows = [(name, version) for name, version in summary["versions"].items()]
    for name, extra in summary["extras"].items():
        rows.append((f"extra {name}", "installed" if extra["installed"] else f"missing: {extra['install']}"))
    rows += _machine_rows(summary) if "cores" in summary else []
    rows += [(f"weights {name}", state) for name, state in summary["weights"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    for problem in summary["problems"]:
        lines += ["", f"{'BROKEN' if problem['essential'] else 'note'}: {problem['what']}", f"  {problem['remedy']}"]
    return "\n".join(lines if summary["problems"] else [*lines, "", "Nothing stands in the way."])


def _machine_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    cores, rates = summary["cores"], summary["matmul_gflops"]
    gpus = [f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in summary["accelerators"]["gpus"]]
    memory, cache, out = summary["memory"], summary["cache"], summary["out"]
    return [
        ("device", f"{summary['device']}{': ' + ', '.join(gpus) if gpus else ''}"),
        ("cores", f"{cores['available']} of {cores['machine']}, {cores['threads']} thread(s), load {cores['load']}"),
        ("matmul", ", ".join(f"{rate:.3g} GFLOP/s in {name}" for name, rate in rates.items())),
        ("memory", f"{memory['free_gib']} of {memory['total_gib']} GiB free"),
        ("output folder", f"{out['folder']}, {_access(out['fault'])}, {out['free_gib']} GiB free"),
        ("cache", f"{cache['folder']}, {_access(cache['fault'])}, {cache['size_mib']} MiB"),
    ]


def _access(fault: str | None) -> str:
    return "writable" if fault is None else f"not writable ({fault})"


def _versions() -> tuple[dict[str, str], list[Problem]]:
    """Versions of what can be imported, and a problem for each that cannot."""
    found, problems = {"python": platform.python_version()}, []
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        problems.append(Problem(f"Python is {found['python']}", f"matfm needs {oldest} or newer", essential=True))
    found["matfm"] = _version("matfm") or "?"
    for package, module in ESSENTIAL.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 (a broken installation may raise anything; all of it is told)
            said = " ".join(str(error).split())
            remedy = f"pip install --force-reinstall {package}"
            problems.append(Problem(f"{package} cannot be imported: {said}", remedy, essential=True))
        else:
            found[package] = _version(package) or "?"
    return found, problems


def _machine(summary: dict[str, Any], config: DoctorConfig) -> list[Problem]:
    """Put what the machine has into the summary; returns what stands in the way."""
    import torch

    from matfm.tasks import machine
    from matfm.tasks.devices import resolve_device
    from matfm.tasks.recipes.sources import default_cache

    device = resolve_device("auto")
    cache = Path(config.cache) if config.cache else default_cache()
    out = Path(config.out)
    summary |= {
        "device": device.type,
        "cores": machine.cores(),
        "accelerators": machine.accelerators(),
        "matmul_gflops": {
            name: round(machine.matmul_rate(device, getattr(torch, name), config.seconds), 2)
            for name in ("float32", "bfloat16")
        },
        "memory": machine.memory(),
        "out": {"folder": str(out), "fault": machine.writable(out), "free_gib": machine.disk_free_gib(out)},
        "cache": {"folder": str(cache), "fault": machine.writable(cache), "size_mib": machine.size_mib(cache)},
    }
    return [*_of_cores(summary["cores"]), *_of_device(summary), *_of_space(summary)]


def _of_cores(cores: dict[str, Any]) -> list[Problem]:
    usable = min(cores["available"], cores["quota"] or cores["available"])
    problems = []
    if cores["threads"] > usable:
        problems.append(
            Problem(
                f"torch uses {cores['threads']} threads and this process may use {usable:g} core(s)",
                f"threads wait for each other: set OMP_NUM_THREADS={max(1, int(usable))} before starting matfm",
            )
        )
    if cores["load"] is not None and cores["load"] > cores["machine"] + 0.5:
        problems.append(
            Problem(
                f"the load is {cores['load']} on {cores['machine']} core(s): other processes take part of them",
                "wait for them, or start fewer at once; the measured rate is lower than the machine's",
            )
        )
    return problems


def _of_device(summary: dict[str, Any]) -> list[Problem]:
    problems, rates, found = [], summary["matmul_gflops"], summary["accelerators"]
    if found["cuda_build"] and not found["cuda"]:
        problems.append(
            Problem(
                f"torch is built for CUDA {found['cuda_build']} and finds no GPU",
                "with a GPU: look at nvidia-smi and the driver; without: torch's build for CPUs is smaller",
            )
        )
    if rates["bfloat16"] < rates["float32"]:
        problems.append(
            Problem(
                f"bfloat16 is slower than float32 here ({rates['bfloat16']:.3g} and {rates['float32']:.3g} GFLOP/s)",
                "leave precision=float32, which is the default",
            )
        )
    return problems


def _of_space(summary: dict[str, Any]) -> list[Problem]:
    problems = []
    for name, option in (("out", "--out"), ("cache", "--cache, or MATFM_CACHE")):
        folder, fault = summary[name]["folder"], summary[name]["fault"]
        if fault is not None:
            what = f"the {'output' if name == 'out' else 'cache'} folder {folder} cannot be written ({fault})"
            problems.append(Problem(what, f"choose another with {option}", essential=name == "out"))
    free = summary["memory"]["free_gib"]
    if free is not None and free < LITTLE_MEMORY_GIB:
        problems.append(
            Problem(f"{free} GiB of memory are free", "end other processes; a killed run goes on with --resume")
        )
    if summary["out"]["free_gib"] < LITTLE_DISK_GIB:
        what = f"{summary['out']['free_gib']} GiB of disk are free in {summary['out']['folder']}"
        problems.append(Problem(what, "free space, or choose another --out"))
    return problems


def _of_weights(faults: dict[str, str | None]) -> list[Problem]:
    remedy = "install matfm again: pip install --force-reinstall --no-deps matfm"
    if not faults:
        return [Problem("no weights are installed with matfm", remedy, essential=True)]
    return [
        Problem(f"the weights {name} are damaged: {fault}", remedy, essential=True)
        for name, fault in faults.items()
        if fault is not None
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
