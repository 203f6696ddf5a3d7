"""The tables of all domains as one table, with the domain and the side of each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from matfm.chem.split_file import UNUSED
from matfm.chem.splits import parse_split
from matfm.errors import MatfmError
from matfm.tasks.adaptation.config import LABELLED, AdaptConfig, DomainTable
from matfm.tasks.data import Reject
from matfm.tasks.encoding import EncodedRows
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.labelled_rows import LabelledRows, labelled_examples
from matfm.tasks.labels import TableLabels, read_labels
from matfm.tasks.readings import readings_to_check, vocabulary_report
from matfm.tasks.splitting import UsableRows, identity_groups, resumed_split, split_rows
from matfm.tasks.tables import Chunk, column_metadata, column_property, read_table
from matfm.tasks.targets import Targets, with_heads

# J rows of all tables, U usable rows

_PROVIDED = ("column", "file")
"""Splits that say the part of unlabelled rows too."""


@dataclass(frozen=True)
class JoinedTables:
    """Rows of all tables, those of the sources first."""

    table: Chunk
    """All columns of all tables; cells that a table lacks are empty."""
    names: tuple[str, ...]
    """Path of each table."""
    table_J: np.ndarray
    """Which table each row is from."""
    row_J: np.ndarray
    """Row there."""
    domain_J: np.ndarray
    """Number of each row's domain."""
    domains: tuple[str, ...]
    sources: int
    """How many tables, and so which rows, are the source's."""
    source_domains: int
    """How many domains, the first ones, are the source's."""

    @property
    def target_J(self) -> np.ndarray:  # noqa: N802 - the shape is part of the name
        """Whether each row is the target's."""
        return self.table_J >= self.sources


@dataclass(frozen=True)
class DomainRows:
    """Usable rows of all domains."""

    labelled: LabelledRows
    """All of them; unlabelled ones have NaN for a label. `targets` has the head that the source's labels call for."""
    joined: JoinedTables

    @cached_property
    def target_U(self) -> np.ndarray:  # noqa: N802
        """Whether each row is the target's."""
        return self.joined.target_J[self.labelled.rows]

    @cached_property
    def domain_U(self) -> np.ndarray:  # noqa: N802
        """Number of each row's domain."""
        return self.joined.domain_J[self.labelled.rows]

    @cached_property
    def known_U(self) -> np.ndarray:  # noqa: N802
        """Whether each row has an exact label."""
        return ~np.isnan(self.labelled.examples.exact_labels()[:, 0])

    def positions(self, side: str, part: str, labelled: bool | None = None) -> np.ndarray:
        """Usable rows of source or target in a part; with a label, without (False), or both (None)."""
        chosen = (self.target_U == (side == "target")) & (self.labelled.parts == part)
        if labelled is not None:
            has_label = ~np.isnan(self.labelled.examples.tokens.targets_RK[:, 0])
            chosen &= has_label == labelled
        return np.flatnonzero(chosen)

    def take(self, positions: np.ndarray) -> Examples:
        """Usable rows."""
        return self.labelled.examples.take(positions)

    def cells(self, positions: np.ndarray) -> list[str]:
        """Their inputs."""
        return [self.labelled.inputs[position] for position in positions.tolist()]

    def view(self, chosen_U: np.ndarray) -> LabelledRows:
        """Some of the usable rows, as a fine-tuning has them."""
        at = np.flatnonzero(chosen_U)
        return replace(
            self.labelled,
            examples=self.take(at),
            rows=self.labelled.rows[at],
            inputs=self.cells(at),
            parts=self.labelled.parts[at],
        )

    def origin(self) -> dict[str, Any]:
        """Columns that say where each usable row is from."""
        rows = self.labelled.rows
        return {
            "row": self.joined.row_J[rows],
            "table": [self.joined.names[number] for number in self.joined.table_J[rows].tolist()],
            "side": ["target" if target else "source" for target in self.target_U.tolist()],
            "domain": [self.joined.domains[number] for number in self.domain_U.tolist()],
        }

    def overlap(self) -> float:
        """Share of the target rows whose reduced formula or canonical SMILES is that of a source training row."""
        groups = identity_groups(self.labelled.inputs, self.labelled.encoder.kind)
        trained = {groups[at] for at in self.positions("source", "train").tolist()}
        of_target = [groups[at] in trained for at in np.flatnonzero(self.target_U).tolist()]
        return sum(of_target) / len(of_target)


def join_tables(config: AdaptConfig) -> JoinedTables:
    """Read all tables.

    Raises:
        MatfmError: a table has no such column, rows, or domain; or one domain is source and target.
    """
    tables = (*config.sources, *config.target)
    chunks = [_renamed(read_table(one.table), one, config, n < len(config.sources)) for n, one in enumerate(tables)]
    _check_units(config, tables)
    columns = dict.fromkeys(name for chunk in chunks for name in chunk.columns)
    joined = Chunk({name: [] for name in columns}, 0)
    of_domain: list[str] = []
    for number, (one, chunk) in enumerate(zip(tables, chunks, strict=True)):
        start = joined.rows
        joined.errors.update({start + row: reason for row, reason in chunk.errors.items()})
        for name in columns:
            joined.columns[name].extend(chunk.columns.get(name) or [""] * chunk.rows)
        of_domain += _domains(config, one, chunk, number, tables)
    counts = [chunk.rows for chunk in chunks]
    table_J = np.repeat(np.arange(len(tables)), counts)
    sources = len(config.sources)
    of_source = set(of_domain[: sum(counts[:sources])])
    domains = tuple(dict.fromkeys(of_domain))
    if both := of_source & set(of_domain[sum(counts[:sources]) :]):
        raise MatfmError(f"{min(both)!r} is a domain of the source and of the target; a domain is one of them")
    return JoinedTables(
        joined,
        tuple(one.table for one in tables),
        table_J,
        np.concatenate([np.arange(count) for count in counts]),
        np.array([domains.index(name) for name in of_domain], np.int64),
        domains,
        sources,
        len(of_source),
    )


def _renamed(chunk: Chunk, one: DomainTable, config: AdaptConfig, source: bool) -> Chunk:
    """With input and label under the names of the run; a target without labels gets an empty column."""
    if chunk.rows == 0:
        raise MatfmError(f"{one.table} has no rows")
    own_input, own_label = one.input or config.input, one.label or config.label
    inputs = chunk.column(own_input, one.table)
    # A label column that a table of the chain names must be there; so must those of the source.
    given = source or one.label or own_label in chunk.columns
    labels = chunk.column(own_label, one.table) if given else [""] * chunk.rows
    others = {name: cells for name, cells in chunk.columns.items() if name not in (own_input, own_label)}
    return Chunk({**others, config.input: inputs, config.label: labels}, 0, chunk.errors)


def _domains(config: AdaptConfig, one: DomainTable, chunk: Chunk, number: int, tables: Any) -> list[str]:
    """Name of each row's domain: its cell, or the table's name (with a number, if two tables have it)."""
    if not config.domain:
        stem = Path(one.table).name.split(".")[0] or one.table
        double = sum(Path(other.table).name.split(".")[0] == stem for other in tables) > 1
        return [f"{stem}#{number + 1}" if double else stem] * chunk.rows
    names = [cell.strip() for cell in chunk.column(config.domain, one.table)]
    if "" in names:
        raise MatfmError(
            f"{one.table}, row {names.index('')}, column {config.domain!r}: the domain is empty; every row needs one"
        )
    return names


def _check_units(config: AdaptConfig, tables: tuple[DomainTable, ...]) -> None:
    """Built tables say the units of their labels, which must agree."""
    units = {
        one.table: unit
        for one in tables
        if (unit := column_metadata(one.table, one.label or config.label).get("unit")) is not None
    }
    if len(set(units.values())) > 1:
        (first, unit), (other, differs) = next(
            (a, b) for a in units.items() for b in units.items() if a[1] != b[1]
        )  # fmt: skip
        raise MatfmError(f"the labels of {first} are in {unit!r} and those of {other} in {differs!r}; convert one")


def load_rows(config: AdaptConfig, begun: Path | None = None) -> DomainRows:
    """Read, tokenize and split all tables; source rows without a label are rejected, target rows are unlabelled.

    Args:
        config: as resolved, with its kind.
        begun: split file of the run that is continued.

    Raises:
        MatfmError: a table cannot be used, or the method needs labels that the target does not have.
    """
    joined = join_tables(config)
    table, tables = joined.table, ", ".join(joined.names)
    inputs = table.columns[config.input]
    encoder = backbone_encoder(config.fit.backbone, config.kind)
    encoded = encoder(inputs)
    unreadable = {**encoded.errors, **table.errors}
    labels = read_labels(table, tables, (config.label,), config.fit.task, unreadable=unreadable)
    _keep_unlabelled(labels, table.columns[config.label], joined.target_J)
    reasons = {**labels.reasons, **{row: (config.input, reason) for row, reason in unreadable.items()}}
    rejects = _rejects(joined, reasons)
    _complain(config, joined, rejects, reasons)
    encoded_used = np.flatnonzero([row not in reasons for row in encoded.rows])
    rows = encoded.rows[encoded_used]
    usable = UsableRows(table, tables, config.input, encoder.kind, rows, labels.targets_RK[rows], labels.classes)
    parts, method = resumed_split(begun, usable) if begun else _split(config, usable, joined.target_J[rows])
    left_out = dict.fromkeys(rows[parts == UNUSED].tolist(), (config.input, "the split leaves this row out"))
    rejects = _rejects(joined, {**reasons, **left_out})
    rows, encoded_used, parts = (values[parts != UNUSED] for values in (rows, encoded_used, parts))
    targets = Targets(
        (column_property(config.sources[0].table, config.sources[0].label or config.label),), labels.classes
    )
    targets = replace(targets, properties=(replace(targets.properties[0], name=config.label),))
    labelled = LabelledRows(
        labelled_examples(encoded, encoded_used, labels, rows),
        encoder,
        rows,
        [inputs[row] for row in rows],
        parts,
        method,
        targets,
        table.rows,
        rejects,
        _reading(encoder.kind, encoded, reasons),
    )
    found = DomainRows(labelled, joined)
    _check_parts(config, found)
    source = found.take(found.positions("source", "train"))
    return replace(found, labelled=replace(labelled, targets=with_heads(targets, config.fit, source)))


def _keep_unlabelled(labels: TableLabels, cells: list[str], target_J: np.ndarray) -> None:
    for row in [row for row in labels.reasons if target_J[row] and not cells[row].strip()]:
        del labels.reasons[row]


def _reading(kind: str, encoded: EncodedRows, reasons: dict[int, tuple[str, str]]) -> dict[str, Any]:
    cut = [row for row in encoded.truncated_rows if row not in reasons]
    return {**readings_to_check(encoded.warnings), **vocabulary_report(kind, encoded.unknown, cut)}


def _rejects(joined: JoinedTables, reasons: dict[int, tuple[str, str]]) -> list[Reject]:
    return [
        Reject(
            int(joined.row_J[row]),
            f"{joined.names[joined.table_J[row]]}: {column}",
            joined.table.columns[column][row],
            reason,
        )
        for row, (column, reason) in sorted(reasons.items())
    ]


def _complain(
    config: AdaptConfig, joined: JoinedTables, rejects: list[Reject], reasons: dict[int, tuple[str, str]]
) -> None:
    if rejects and config.on_bad == "stop":
        first = rejects[0]
        raise MatfmError(f"{first.column}, row {first.row}: {first.reason} (--on-bad stop)")
    for number, name in enumerate(joined.names):
        own = np.flatnonzero(joined.table_J == number)
        if all(row in reasons for row in own.tolist()):
            column, reason = reasons[int(own[0])]
            raise MatfmError(
                f"{name} has no usable row; the first one, column {column!r}: {reason}; "
                "check --input, --label and --task"
            )


def _split(config: AdaptConfig, usable: UsableRows, target_U: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Source and target are split apart; unlabelled target rows are for training, unless the split knows better."""
    parts = np.full(len(usable.rows), "train", dtype=object)
    source = np.flatnonzero(~target_U)
    of_source = split_rows(config.split, _of(usable, source), (config.valid_share, config.test_share, 0.0), config.seed)
    parts[source] = of_source[0]
    provided = parse_split(config.target_split).method in _PROVIDED
    known_U = ~np.isnan(usable.targets_UK[:, 0])
    target = np.flatnonzero(target_U & (known_U | provided))
    method: dict[str, Any] = {"source": of_source[1]}
    if len(target):
        shares = (config.target_valid_share, config.target_test_share, 0.0)
        parts[target], method["target"] = split_rows(config.target_split, _of(usable, target), shares, config.seed)
    return parts, method


def _of(usable: UsableRows, at: np.ndarray) -> UsableRows:
    return replace(usable, rows=usable.rows[at], targets_UK=usable.targets_UK[at])


def _check_parts(config: AdaptConfig, rows: DomainRows) -> None:
    tables = ", ".join(one.table for one in config.target)
    if config.method in LABELLED and not len(rows.positions("target", "train", labelled=True)):
        raise MatfmError(
            f"method {config.method} learns from target labels, and no training row of {tables} has one; "
            "give some, or choose dann, cdan, coral or mmd"
        )
    if config.method not in ("none", *LABELLED) and not len(rows.positions("target", "train")):
        raise MatfmError(f"the target split leaves no row of {tables} to adapt to; choose another --target-split")
