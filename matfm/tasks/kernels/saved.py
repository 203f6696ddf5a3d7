"""A kernel regression in a folder: numbers as safetensors, what they mean as plain values, the encoder beside them.

Of the training rows the features that have a weight are kept; what follows from them (scales, kernels) is made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from matfm.core.files import atomic_path
from matfm.errors import MatfmError
from matfm.tasks.kernels.describer import load_describer
from matfm.tasks.kernels.part_kernels import known_part
from matfm.tasks.kernels.regression import KernelRegression, read_bounds
from matfm.tasks.kernels.summed import SummedKernel

KERNELS = "kernels.safetensors"
FORMAT = "1"


def save_regression(regression: KernelRegression, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write `kernels.safetensors` and the encoder; returns the plain values that `load_regression` needs.

    Raises:
        MatfmError: the folder holds such a file already.
    """
    if (folder / KERNELS).exists():
        raise MatfmError(f"{folder} already holds a fitted kernel; choose another folder")
    regression.describer.save(folder, record)
    tensors = {f"features.{part}": np.ascontiguousarray(values) for part, values in regression.described.items()}
    for k, (rows, kernel) in enumerate(zip(regression.rows, regression.summed, strict=True)):
        tensors |= {f"{k}.rows": rows, f"{k}.weight": kernel.weight_R, f"{k}.left_out": kernel.left_out_R}
    with atomic_path(folder / KERNELS) as temporary:
        save_file(tensors, temporary, {"format": FORMAT})
    return {
        "kind": regression.describer.encoder.kind,
        "views": list(regression.describer.views),
        "bounds": [[end if np.isfinite(end) else None for end in pair] for pair in regression.bounds],
        "targets": [
            {
                "weights": dict(kernel.weights),
                "lengths": {part: part_kernel.length for part, part_kernel in kernel.kernels.items()},
                "intercept": kernel.intercept,
                "noise": kernel.noise,
                "scale": kernel.scale,
            }
            for kernel in regression.summed
        ],
    }


def load_regression(folder: Path, said: Any) -> KernelRegression:
    """What `save_regression` wrote, and returned.

    Raises:
        MatfmError: a file is not there, damaged, or of another format.
    """
    path = folder / KERNELS
    if not path.is_file():
        raise MatfmError(f"{folder} holds no {KERNELS}; save the estimator there again")
    try:
        described, rows, summed = _read(path, said["targets"])
        bounds = read_bounds(said["bounds"], len(summed))
        describer = load_describer(folder, said["views"], said["kind"])
    except MatfmError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MatfmError(f"{path} is damaged ({error}); save the estimator again") from error
    return KernelRegression(describer, described, rows, summed, bounds)


def _read(
    path: Path, targets: list[dict[str, Any]]
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...], tuple[SummedKernel, ...]]:
    """Features, rows of each target, and what was fitted to them."""
    with safe_open(path, "numpy") as file:
        if (found := (file.metadata() or {}).get("format")) != FORMAT:
            raise MatfmError(f"{path} has format {found!r}; this version reads format {FORMAT!r}: fit again")
        used = {part for said in targets for part in said["lengths"]}
        described = {part: file.get_tensor(f"features.{part}") for part in used}
        rows = tuple(file.get_tensor(f"{k}.rows") for k in range(len(targets)))
        summed = []
        for k, said in enumerate(targets):
            own = {part: values[rows[k]] for part, values in described.items()}
            summed.append(_summed(said, own, file.get_tensor(f"{k}.weight"), file.get_tensor(f"{k}.left_out")))
    return described, rows, tuple(summed)


def _summed(
    said: dict[str, Any], described: dict[str, np.ndarray], weight_R: np.ndarray, left_out_R: np.ndarray
) -> SummedKernel:
    return SummedKernel(
        {part: known_part(part, described[part], length) for part, length in said["lengths"].items()},
        {part: float(weight) for part, weight in said["weights"].items()},
        weight_R,
        float(said["intercept"]),
        float(said["noise"]),
        float(said["scale"]),
        left_out_R,
    )
