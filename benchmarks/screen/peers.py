"""Other ways to score many formulas: CrabNet's `predict`, and a random forest on Magpie features."""

from __future__ import annotations

import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np

from matfm.chem.magpie import magpie_features
from matfm.tasks.recipes.element_properties import magpie_table

FOREST = {"n_estimators": 500, "max_features": 1 / 3, "n_jobs": -1, "random_state": 0}
Labelled = list[tuple[str, float]]
_MATMINER = """
import csv, os, sys, time
import pandas as pd
from matminer.featurizers.composition import ElementProperty
from pymatgen.core import Composition
from sklearn.ensemble import RandomForestRegressor

def read(path):
    with open(path, newline="") as lines:
        return list(csv.DictReader(lines))

def features(rows):
    formulas = [row["formula"] for row in rows]
    preset = ElementProperty.from_preset("magpie")
    preset.set_n_jobs(os.cpu_count())
    return preset.featurize_many([Composition(formula) for formula in formulas], ignore_errors=True, pbar=False)

if __name__ == "__main__":
    train, sample = read(sys.argv[1]), read(sys.argv[2])
    forest = RandomForestRegressor(n_estimators=500, max_features=1 / 3, n_jobs=-1, random_state=0)
    forest.fit(pd.DataFrame(features(train)).fillna(0), [float(row["label"]) for row in train])
    started = time.perf_counter()
    forest.predict(pd.DataFrame(features(sample)).fillna(0))
    print(time.perf_counter() - started)
"""


def crabnet_seconds(wheel: Path, work: Path, train: Labelled, sample: list[str]) -> float:
    """Time of CrabNet's `predict` with its defaults on all cores; it is trained for two passes, not counted."""
    folder = work / "crabnet"
    if not folder.is_dir():
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if "/benchmark_data/" not in name]
            archive.extractall(folder, names)
    sys.path.insert(0, str(folder))
    sys.modules.setdefault("seaborn", types.ModuleType("seaborn"))  # imported, but not used to predict
    import pandas as pd
    from crabnet.crabnet_ import CrabNet

    model = CrabNet(save=False, losscurve=False, learningcurve=False, verbose=False, force_cpu=True, epochs=2)
    table = pd.DataFrame(train, columns=["formula", "target"])
    model.fit(table, table)
    model.n_elements = "infer"  # else formulas of the sample would be cut to the elements of the training rows
    table = pd.DataFrame({"formula": sample, "target": np.zeros(len(sample))})
    started = time.perf_counter()
    model.predict(table)
    return time.perf_counter() - started


def forest_seconds(train: Labelled, sample: list[str]) -> float:
    """Time of our own, vectorised Magpie features and scikit-learn's forest on all cores; its fit is not counted."""
    from sklearn.ensemble import RandomForestRegressor

    table = magpie_table()
    formulas, labels = zip(*train, strict=True)
    forest = RandomForestRegressor(**FOREST).fit(magpie_features(formulas, table), labels)
    started = time.perf_counter()
    forest.predict(magpie_features(sample, table))
    return time.perf_counter() - started


def matminer_seconds(python: str, work: Path, train: Labelled, sample: list[str]) -> float:
    """The same with matminer's featuriser, in another Python that has it."""
    tables = {"train": train, "sample": [(formula, 0.0) for formula in sample]}
    for name, rows in tables.items():
        text = "".join(f"{formula},{label}\n" for formula, label in rows)
        (work / f"matminer_{name}.csv").write_text("formula,label\n" + text, "utf-8")
    files = [str(work / f"matminer_{name}.csv") for name in tables]
    done = subprocess.run([python, "-c", _MATMINER, *files], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])
