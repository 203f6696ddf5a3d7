"""What is computed of every molecule of a corpus, once and on all cores: spellings, units, descriptors, fingerprints.

The results lie in a folder, one file for every thousand rows: a run that was killed computes only what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from matfm.chem.augment import enumerate_smiles
from matfm.chem.descriptors import descriptor_values
from matfm.chem.fingerprints import morgan_fingerprints
from matfm.chem.line_corpus import first_field
from matfm.chem.molecule_units import molecule_units, selfies_units
from matfm.chem.selfies import selfies_to_smiles, smiles_to_selfies
from matfm.chem.smiles import parse_smiles
from matfm.core.files import atomic_path, write_json
from matfm.errors import MatfmError
from matfm.tasks.pretraining.rows import SequenceUnits
from matfm.tasks.streaming.parallel import available_cores, map_in_order
from matfm.tasks.tables import Chunk

# R rows, S sequences (R times the ways a row is written), D descriptors, W bytes of a fingerprint

CHUNK_ROWS = 1000
CLIP = 6.0
"""Standard deviations from the mean beyond which a descriptor is cut off (as CheMeleon does; Burns et al. 2025)."""
_QUANTILES = (0.005, 0.995)
_FORMAT = 1
_PLAN = "plan.json"
_COLUMN = "cells"


@dataclass(frozen=True)
class MoleculePlan:
    """What to compute."""

    kind: str
    """smiles or selfies: how the model reads a molecule."""
    from_smiles: bool
    """Whether SELFIES are written from SMILES."""
    enumerations: int
    """Random spellings beside the first one."""
    units: str
    """Kind of units of tokens (see `molecule_units`); empty for none."""
    descriptors: tuple[str, ...]
    """Names of RDKit descriptors."""
    fingerprint_bits: int
    """0 for no fingerprint."""
    seed: int
    """Of the random spellings."""
    partners: bool = False
    """Whether the SELFIES of every spelling is written too (kind smiles)."""


@dataclass(frozen=True)
class DescribedMolecules:
    """The readable rows of a column."""

    rows: np.ndarray
    """Position of each in the column."""
    errors: dict[int, str]
    """Position of the others to the reason."""
    texts: list[str]
    """S spellings, those of a row together, the canonical one (of SELFIES: the one given) first."""
    key_R: np.ndarray
    """Hash of the canonical SMILES, uint64: equal for one molecule however it is written."""
    units: SequenceUnits | None
    """Of all S spellings."""
    descriptors_RD: np.ndarray
    """float32, NaN where RDKit has no number."""
    fingerprints_RW: np.ndarray | None
    """Packed bits, uint8."""
    partners: list[str]
    """SELFIES of all S spellings, if they were asked for; atoms come in the same order."""


def descriptor_names(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """`rdkit` or names, checked.

    Raises:
        MatfmError: RDKit has no such descriptor.
    """
    from rdkit.Chem import Descriptors

    known = [name for name, _ in Descriptors.descList]
    if wanted == "rdkit":
        return tuple(known)
    names = (wanted,) if isinstance(wanted, str) else tuple(dict.fromkeys(wanted))
    if unknown := [name for name in names if name not in known]:
        raise MatfmError(
            f"data.descriptors: RDKit has no descriptor {unknown[0]!r}; take rdkit, or names as {known[4]}"
        )
    return names


def describe_molecules(
    cells: list[str], plan: MoleculePlan, folder: Path, workers: int = 0, source: str = ""
) -> DescribedMolecules:
    """Compute what is not in the folder yet, on all cores, and read everything from there.

    Args:
        cells: SMILES or SELFIES, one a row.
        plan: what to compute.
        folder: of the results; what it holds of other cells or another plan is removed.
        workers: processes; 0 for one per core.
        source: name of the table, for the bar.
    """
    made_by = _made_by(cells, plan)
    path = folder / _PLAN
    if not path.is_file() or json.loads(path.read_text("utf-8")) != made_by:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(path, made_by)
    starts = range(0, len(cells), CHUNK_ROWS)
    missing = [start for start in starts if not _shard(folder, start).is_file()]
    chunks = (Chunk({_COLUMN: cells[start : start + CHUNK_ROWS]}, start) for start in missing)
    with tqdm(total=len(cells), desc=f"molecules {source}".strip(), unit="row", disable=None, leave=False) as bar:
        bar.update(len(cells) - sum(len(cells[start : start + CHUNK_ROWS]) for start in missing))
        for chunk, arrays in map_in_order(partial(_describe, plan=plan), chunks, _COLUMN, workers or available_cores()):
            with atomic_path(_shard(folder, chunk.first_row)) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # names are no keyword of savez
            bar.update(chunk.rows)
    return _joined([(start, _shard(folder, start)) for start in starts], plan)


def _made_by(cells: list[str], plan: MoleculePlan) -> dict[str, Any]:
    """What the results depend on."""
    from rdkit import rdBase

    digest = hashlib.sha256("\n".join(cells).encode("utf-8", "surrogatepass")).hexdigest()
    made_by = {"format": _FORMAT, "cells_sha256": digest, "rdkit": rdBase.rdkitVersion, **dataclasses.asdict(plan)}
    if not plan.partners:
        del made_by["partners"]  # results of before there were partners hold
    return json.loads(json.dumps(made_by))


def _shard(folder: Path, first_row: int) -> Path:
    return folder / f"{first_row:09d}.npz"


def _describe(cells: list[str], plan: MoleculePlan) -> dict[str, np.ndarray]:
    """In a worker: the results of a chunk as arrays."""
    rows: list[int] = []
    errors: dict[int, str] = {}
    texts: list[str] = []
    partners: list[str] = []
    keys: list[int] = []
    units: list[list[list[int]]] = []
    molecules: list[Any] = []
    for row, cell in enumerate(cells):
        try:
            canonical, molecule, spelled = _spellings(cell, plan)
            found = [_UNITS[plan.kind](text, plan.units) for text in spelled] if plan.units else []
            others = [smiles_to_selfies(text) for text in spelled] if plan.partners else []
        except MatfmError as error:
            errors[row] = str(error)
            continue
        rows.append(row)
        texts += spelled
        partners += others
        keys.append(_key(canonical))
        units += found
        molecules.append(molecule)
    flat = SequenceUnits.from_lists(units)
    return {
        "rows": np.array(rows, np.int64),
        "errors": _bytes(json.dumps(errors)),
        "texts": _bytes("\n".join(texts)),
        "partners": _bytes("\n".join(partners)),
        "keys": np.array(keys, np.uint64),
        "unit_values": flat.values,
        "unit_lengths": np.diff(flat.offsets),
        "descriptors": descriptor_values(molecules, plan.descriptors),
        "fingerprints": _fingerprints(molecules, plan.fingerprint_bits),
    }


_UNITS: dict[str, Callable[[str, str], list[list[int]]]] = {"smiles": molecule_units, "selfies": selfies_units}


def _spellings(cell: str, plan: MoleculePlan) -> tuple[str, Any, list[str]]:
    """Canonical SMILES, molecule, and the spellings that the model reads. Raises MatfmError for no molecule."""
    if plan.kind == "smiles" or plan.from_smiles:
        parsed = parse_smiles(cell)
        first = parsed.canonical if plan.kind == "smiles" else smiles_to_selfies(parsed.canonical)
    else:
        first = first_field(cell)
        parsed = parse_smiles(selfies_to_smiles(first))
    spelled = [first]
    if plan.enumerations:
        generator = np.random.default_rng([plan.seed, _key(parsed.canonical)])
        others = enumerate_smiles(parsed.canonical, plan.enumerations, generator)
        if plan.kind == "selfies":
            others = [smiles_to_selfies(text) for text in others]
        # Small molecules have fewer spellings than were asked for: they come round again.
        spelled += [others[way % len(others)] for way in range(plan.enumerations)]
    return parsed.canonical, parsed.molecule, spelled


def _key(canonical: str) -> int:
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big")


def _fingerprints(molecules: list[Any], bits: int) -> np.ndarray:
    """Packed bits of Morgan fingerprints of radius 2, (R, W)."""
    return morgan_fingerprints(molecules, bits) if bits else np.zeros((len(molecules), 0), np.uint8)


def _joined(shards: list[tuple[int, Path]], plan: MoleculePlan) -> DescribedMolecules:
    rows, keys, unit_values, unit_lengths, descriptors, fingerprints = ([] for _ in range(6))
    errors: dict[int, str] = {}
    texts: list[str] = []
    partners: list[str] = []
    for start, path in shards:
        with np.load(path) as shard:
            rows.append(shard["rows"] + start)
            keys.append(shard["keys"])
            unit_values.append(shard["unit_values"])
            unit_lengths.append(shard["unit_lengths"])
            descriptors.append(shard["descriptors"])
            fingerprints.append(shard["fingerprints"])
            errors.update({start + int(row): why for row, why in json.loads(shard["errors"].tobytes()).items()})
            texts += shard["texts"].tobytes().decode().split("\n") if len(shard["rows"]) else []
            if plan.partners and len(shard["rows"]):
                partners += shard["partners"].tobytes().decode().split("\n")
    nothing = np.zeros(0, np.int64)
    return DescribedMolecules(
        np.concatenate([nothing, *rows]),
        errors,
        texts,
        np.concatenate([nothing.astype(np.uint64), *keys]),
        _units(unit_values, unit_lengths) if plan.units else None,
        np.concatenate([np.zeros((0, len(plan.descriptors)), np.float32), *descriptors]),
        np.concatenate(fingerprints) if plan.fingerprint_bits and fingerprints else None,
        partners,
    )


def _units(values: list[np.ndarray], lengths: list[np.ndarray]) -> SequenceUnits:
    return SequenceUnits(np.concatenate(values), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@dataclass(frozen=True)
class Winsor:
    """Bounds of descriptors, found on training rows, within which they are targets."""

    kept: np.ndarray
    """Columns that are not constant."""
    low_D: np.ndarray
    high_D: np.ndarray

    @classmethod
    def fit(cls, values_RD: np.ndarray) -> Winsor:
        """From training rows.

        Some descriptors span thirty orders of magnitude (Ipc). First what lies further out than one width of the
        central 99 % beyond it is cut, unless these are all equal (rare groups, which are not outliers); then what
        lies more than `CLIP` standard deviations from the mean. Columns that are constant or empty are not kept.
        """
        bounds = [_bounds(values_RD[:, column].astype(np.float64)) for column in range(values_RD.shape[1])]
        low_D, high_D = np.array(bounds).reshape(-1, 2).T
        kept = np.flatnonzero(high_D > low_D)
        return cls(kept, low_D[kept].astype(np.float32), high_D[kept].astype(np.float32))

    def apply(self, values_RD: np.ndarray) -> np.ndarray:
        """The columns that are kept, cut to the bounds; NaN stays."""
        return np.clip(values_RD[:, self.kept], self.low_D, self.high_D)


def _bounds(values_R: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value of a descriptor as a target; equal ones if it tells nothing."""
    values_R = values_R[np.isfinite(values_R)]
    if len(values_R) == 0:
        return 0.0, 0.0
    low, high = np.quantile(values_R, _QUANTILES)
    if high > low:
        values_R = values_R.clip(low - (high - low), high + (high - low))
    mean, deviation = values_R.mean(), values_R.std()
    if deviation <= 1e-9 * max(1.0, abs(mean)):
        return 0.0, 0.0
    return max(values_R.min(), mean - CLIP * deviation), min(values_R.max(), mean + CLIP * deviation)
