"""The real corpora, read from package files without extracting them."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

MOLECULEACE = "MoleculeACE 3.0.0"
MOSES = "molsets 0.3.1 (MOSES)"
CRABNET = "crabnet 2.0.8"
_FORMULA_COLUMNS = ("formula", "composition")


def moleculeace(wheel: Path) -> list[str]:
    """SMILES of all 30 tables."""
    with zipfile.ZipFile(wheel) as archive:
        tables = sorted(name for name in archive.namelist() if "benchmark_data/" in name and name.endswith(".csv"))
        return [row["smiles"] for name in tables for row in _records(archive, name)]


def moses(wheel: Path) -> list[str]:
    """SMILES of train, test and scaffold test."""
    rows: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        for part in ("train", "test", "test_scaffolds"):
            text = gzip.decompress(archive.read(f"moses/dataset/data/{part}.csv.gz")).decode("utf-8")
            rows += [line.split(",")[0] for line in text.splitlines()[1:]]
    return rows


def formulas(wheel: Path) -> list[str]:
    """Distinct formulas of every table: OQMD, AFLOW, Materials Project, Matbench and the examples."""
    found: dict[str, None] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".csv") and "/element_properties/" not in name:
                reader = _records(archive, name)
                column = next(c for c in _FORMULA_COLUMNS if c in (reader.fieldnames or ()))
                found.update(dict.fromkeys(row[column] for row in reader))
    return list(found)


def oqmd(wheel: Path) -> list[str]:
    """Formulas of OQMD's formation enthalpies, all three parts."""
    with zipfile.ZipFile(wheel) as archive:
        folder = "crabnet/data/benchmark_data/OQMD_Formation_Enthalpy/"
        parts = sorted(name for name in archive.namelist() if name.startswith(folder))
        return [row["formula"] for name in parts for row in _records(archive, name)]


def _records(archive: zipfile.ZipFile, name: str) -> csv.DictReader[str]:
    return csv.DictReader(io.StringIO(archive.read(name).decode("utf-8-sig")))
