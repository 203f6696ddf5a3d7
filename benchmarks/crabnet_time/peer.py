"""CrabNet's own code, from its package file."""

from __future__ import annotations

import importlib
import sys
import time
import types
import zipfile
from pathlib import Path
from typing import Any

from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.recipes.sources import default_cache, fetch

DEFAULT_EPOCHS = 300
"""Of `CrabNet()`, unless it stops by itself."""


class Stopped(Exception):  # noqa: N818 (no error: as many epochs as were wanted)
    """The epochs that were to be timed are over."""


def load_crabnet(folder: Path) -> type[Any]:
    """The class `CrabNet` of crabnet 2.0.8.

    Its metadata asks for an older Python, so it cannot be installed beside matfm; its modules and element properties
    are read from the verified wheel into `folder`. seaborn, which it imports for colours of pictures that are not
    drawn here, is replaced by nothing where it is not installed.
    """
    source = load_recipe("matbench_expt_gap").source
    assert source is not None
    with zipfile.ZipFile(fetch(source, default_cache())) as wheel:
        for name in wheel.namelist():
            if name.endswith(".py") or "/element_properties/" in name:
                wheel.extract(name, folder)
    try:
        importlib.import_module("seaborn")
    except ModuleNotFoundError:
        stand_in = types.ModuleType("seaborn")
        stand_in.color_palette = lambda *_, **__: []  # type: ignore[attr-defined]
        sys.modules["seaborn"] = stand_in
    sys.path.insert(0, str(folder))
    return importlib.import_module("crabnet.crabnet_").CrabNet


def timed_crabnet(crabnet: type[Any], most: int) -> type[Any]:
    """CrabNet that notes the seconds of every epoch's training, and stops after `most` of them."""

    class Timed(crabnet):
        epoch_seconds: list[float]

        def _train(self) -> None:
            if not hasattr(self, "epoch_seconds"):
                self.epoch_seconds = []
            started = time.perf_counter()
            super()._train()
            self.epoch_seconds.append(time.perf_counter() - started)
            if len(self.epoch_seconds) == most < DEFAULT_EPOCHS:
                raise Stopped

    return Timed
