"""`matfm data validity`: which rows of a table are valid, neutral and novel, and the shares, streaming."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from matfm.chem.validity import KINDS, UNIQUE_AT, Check, ValidityCounter, Verdict, validity_check
from matfm.errors import MatfmError
from matfm.tasks.readings import SHOWN
from matfm.tasks.tables import STANDARD_INPUT, Chunk, check_output, iterate_table, table_writer

_COLUMNS = {
    "valid": pa.bool_(),
    "canonical": pa.string(),
    "charge_neutral": pa.bool_(),
    "electronegativity_balanced": pa.bool_(),
    "novel": pa.bool_(),
    "error": pa.string(),
}


@dataclass(frozen=True)
class ValidityConfig:
    """`matfm data validity`."""

    table: str
    """Table to read, or - for CSV on standard input."""
    input: str
    """Column with the formulas or molecules, in the reference too."""
    kind: str = "composition"
    """composition, smiles or selfies."""
    reference: str | None = None
    """Table of the training set, for novelty."""
    out: str | None = None
    """Table to write, one row per input row; none if not given."""
    k: int = UNIQUE_AT
    """unique@k looks at the first k valid rows."""
    oxidation_states: str = "icsd24"
    """icsd24, icsd16, smact14 or pymatgen_sp (compositions)."""
    alloys: bool = True
    """Compositions of metals only count as neutral and balanced."""
    mixed_valence: bool = False
    """One element may have two neighbouring oxidation states."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MatfmError(f"kind is {self.kind!r}; choose one of {', '.join(KINDS)}")
        if self.k < 1:
            raise MatfmError(f"k is {self.k}; unique@k needs at least one")
        if self.table == self.reference == STANDARD_INPUT:
            raise MatfmError("table and reference are both standard input; give one of them as a file")
        if self.out is not None:
            check_output(self.out, self.table, self.reference)


def run(config: ValidityConfig) -> dict[str, Any]:
    """Write one row per input row, in order; invalid rows get the reason in `error`. Returns the summary."""
    check = validity_check(
        config.kind, config.oxidation_states, alloys=config.alloys, mixed_valence=config.mixed_valence
    )
    reference, unreadable = _reference(config, check) if config.reference is not None else (None, 0)
    counter = ValidityCounter(config.kind, reference, config.k)
    chunks = iterate_table(config.table)
    first = next(chunks)
    first.column(config.input, config.table)
    reasons: dict[str, int] = {}
    with _writer(config, first) as append, tqdm(desc="validity", unit="row", disable=None, leave=False) as bar:
        chunk: Chunk | None = first
        while chunk is not None:
            verdicts = _verdicts(chunk, config.input, check)
            for row, (text, verdict) in enumerate(zip(chunk.columns[config.input], verdicts, strict=True)):
                counter.add(text, verdict)
                if verdict.error is not None and len(reasons) < SHOWN:
                    reasons.setdefault(verdict.error, chunk.first_row + row)
            append({**chunk.columns, **_cells(verdicts, reference)})
            bar.update(chunk.rows)
            chunk = next(chunks, None)
    report = counter.report()
    return {
        "task": "validity",
        "kind": config.kind,
        "table": config.table,
        "out": config.out,
        "rows_in": report.n,
        "rows_with_error": report.n - report.n_valid,
        **report.summary(),
        **({"reference": config.reference, "reference_rows_with_error": unreadable} if config.reference else {}),
        "first_errors": [{"row": row, "reason": reason} for reason, row in reasons.items()],
    }


def _reference(config: ValidityConfig, check: Check) -> tuple[set[str], int]:
    """Canonical texts of the training set, and how many of its rows are not valid."""
    assert config.reference is not None
    known: set[str] = set()
    unreadable = 0
    for chunk in iterate_table(config.reference):
        chunk.column(config.input, config.reference)
        for verdict in _verdicts(chunk, config.input, check):
            if verdict.canonical is None:
                unreadable += 1
            else:
                known.add(verdict.canonical)
    return known, unreadable


def _verdicts(chunk: Chunk, column: str, check: Check) -> list[Verdict]:
    """A row that is wrong as a whole is not valid, whatever its cell holds."""
    return [
        Verdict(error=chunk.errors[row]) if row in chunk.errors else check(text)
        for row, text in enumerate(chunk.columns[column])
    ]


def _cells(verdicts: list[Verdict], reference: set[str] | None) -> dict[str, list[Any]]:
    novel = [None if reference is None or v.canonical is None else v.canonical not in reference for v in verdicts]
    cells = {name: [getattr(v, name) for v in verdicts] for name in _COLUMNS if name != "novel"}
    return {**cells, "novel": novel}


@contextmanager
def _writer(config: ValidityConfig, first: Chunk) -> Iterator[Any]:
    """Input columns as text, then the verdict's; a column of the same name is replaced."""
    if config.out is None:
        yield lambda columns: None
        return
    types = {**dict.fromkeys(first.columns, pa.string()), **_COLUMNS}
    with table_writer(config.out, pa.schema(list(types.items()))) as append:
        yield append
