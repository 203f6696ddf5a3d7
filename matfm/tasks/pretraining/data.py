"""Corpora of pretraining: tables of compositions or molecules in memory, and token files of any size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matfm.chem.composition_encoder import OrderedFormulas, encode_in_order
from matfm.chem.composition_schemes import UNK
from matfm.chem.formula import Formula, read_formula
from matfm.chem.joint_tokenizer import composition_line, line_ids
from matfm.chem.line_corpus import encode_lines
from matfm.chem.molecule_units import UNIT_KINDS
from matfm.chem.notations import NOTATIONS
from matfm.chem.property_text import property_of_column
from matfm.chem.units import Property
from matfm.core.batching import RaggedTokens
from matfm.core.property_bins import PropertyBins
from matfm.core.random_order import mixed_bits
from matfm.core.sequence_hash import sequence_hashes, shares_of
from matfm.core.token_files import no_amounts, open_tokens
from matfm.core.varied_tokens import VariedTokens
from matfm.errors import MatfmError
from matfm.tasks import data
from matfm.tasks.encoding import EncodedRows, as_rows, encode_formulas, parse_number
from matfm.tasks.pretraining.conditions import fit_conditions
from matfm.tasks.pretraining.molecule_targets import MoleculePlan, Winsor, describe_molecules, descriptor_names
from matfm.tasks.pretraining.pairs import Pairs, ragged
from matfm.tasks.pretraining.rows import Part
from matfm.tasks.pretraining.vocabulary import new_tokenizer, vocabulary_digest
from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.tables import Chunk, column_metadata, column_property, read_table

if TYPE_CHECKING:
    from matfm.tasks.pretraining.config import PretrainConfig

# R rows, K targets, D descriptors

_SCANNED = 65_536
"""Rows of a token file hashed at a time in search of those held out."""


@dataclass(frozen=True)
class Corpus:
    """Training and held-out rows."""

    train: Part
    held_out: Part
    properties: tuple[Property, ...]
    """Target columns of the table, then the computed descriptors."""
    conditions: tuple[PropertyBins, ...] = ()
    """Bins of the target columns that texts are conditioned on."""
    rejects: list[data.Reject] = field(default_factory=list)
    warnings: dict[int, str] = field(default_factory=dict)
    """Row in the table to a reading of its formula that should be checked."""
    rows_in: int = 0
    rows_used: int = 0
    rows_held_out: int = 0
    """Rows never trained on."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What else the summary says of the rows."""


@dataclass
class _Read:
    """The readable rows of a table."""

    encoded: EncodedRows
    key_R: np.ndarray
    """Equal for equal molecules or compositions, uint64."""
    part: Part
    descriptors_RD: np.ndarray | None = None
    descriptors: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


def load_corpus(config: PretrainConfig, out: Path) -> Corpus:
    """Read, tokenize and split what a configuration names; `out / "data"` keeps what takes long to compute."""
    if config.data.tokens:
        return _token_file(config)
    first = _table(config, out, "molecules")
    further = [
        _table(replace(config, data=part), out, f"molecules-{number}")
        for number, part in enumerate(config.data.more, start=1)
    ]
    return _joined([first, *further]) if further else first


def _joined(corpora: list[Corpus]) -> Corpus:
    """Several corpora as one. Rejected rows name their column, not their table."""
    first, *_ = corpora
    return Corpus(
        Part.joined([corpus.train for corpus in corpora]),
        Part.joined([corpus.held_out for corpus in corpora]),
        first.properties,
        rejects=[reject for corpus in corpora for reject in corpus.rejects],
        warnings={row: text for corpus in reversed(corpora) for row, text in corpus.warnings.items()},
        rows_in=sum(corpus.rows_in for corpus in corpora),
        rows_used=sum(corpus.rows_used for corpus in corpora),
        rows_held_out=sum(corpus.rows_held_out for corpus in corpora),
        notes={name: note for corpus in reversed(corpora) for name, note in corpus.notes.items()},
    )


def _table(config: PretrainConfig, out: Path, computed: str) -> Corpus:
    """One table; `computed` names the folder of what is computed of its molecules."""
    path = config.data.table or _built_recipe(config.data.recipe, out)
    table = read_table(path)
    if config.data.rows:
        table = table.first(config.data.rows)
    written = table.column(config.data.column, path)
    # A row with too many cells may have them in the wrong columns: it is not read.
    cells = ["" if row in table.errors else cell for row, cell in enumerate(written)] if table.errors else written
    is_formula = config.data.kind == "composition"
    folder = out / "data" / computed
    read = _read_formulas(config, cells) if is_formula else _read_molecules(config, cells, folder, path)
    reasons = {**read.encoded.errors, **table.errors}
    rejects = [data.Reject(row, config.data.column, written[row], why) for row, why in sorted(reasons.items())]
    read.encoded.tokens.targets_RK, bad = _targets(table, read.encoded, config.data.targets, path)
    if config.data.on_bad == "stop" and (rejects or bad):
        first = min(rejects + bad, key=lambda reject: reject.row)
        raise MatfmError(f"{path}, row {first.row}, column {first.column!r}: {first.reason} (data.on_bad = 'stop')")
    held_out_R = shares_of(read.key_R) < config.data.held_out
    if held_out_R.all() or not held_out_R.any():
        held_out = f"too few to hold out {config.data.held_out:.0%}"
        raise MatfmError(f"{path} has {len(read.encoded.rows)} readable rows, {held_out}")
    properties = tuple(column_property(path, target) for target in config.data.targets)
    _check_labels(read.encoded.tokens.targets_RK, held_out_R, config.data.targets, path)
    if read.descriptors_RD is not None:
        winsor = Winsor.fit(read.descriptors_RD[~held_out_R])
        if len(winsor.kept) == 0:
            raise MatfmError("data.descriptors: every one of them is constant on these molecules; leave them out")
        columns = (read.encoded.tokens.targets_RK, winsor.apply(read.descriptors_RD))
        read.encoded.tokens.targets_RK = np.concatenate(columns, axis=1)
        properties += tuple(Property(read.descriptors[index], "") for index in winsor.kept.tolist())
        read.notes.update(descriptors=len(winsor.kept), descriptors_constant=len(read.descriptors) - len(winsor.kept))
    whole = _completed(read, config.seed)
    if config.joint and is_formula:
        labels_RK, names = _said(read.encoded.tokens.targets_RK, config.data.targets, path)
        whole = replace(whole, pairs=Pairs.of_compositions(labels_RK, names))
    return Corpus(
        whole.take(np.flatnonzero(~held_out_R)),
        whole.take(np.flatnonzero(held_out_R)),
        properties,
        fit_conditions(config, read.encoded.tokens.targets_RK[~held_out_R], path),
        rejects + bad,
        read.encoded.warnings,
        rows_in=len(cells),
        rows_used=len(read.encoded.rows),
        rows_held_out=int(held_out_R.sum()),
        notes=read.notes,
    )


def _check_labels(targets_RK: np.ndarray, held_out_R: np.ndarray, names: tuple[str, ...], path: str) -> None:
    """Raise MatfmError for a target that no training row has, or if no held-out row has any."""
    labelled_RK = ~np.isnan(targets_RK)
    for name, labels in zip(names, labelled_RK[~held_out_R].sum(axis=0), strict=True):
        if labels == 0:
            raise MatfmError(f"{path}: no training row has a number in column {name!r}; leave it out of data.targets")
    if names and not labelled_RK[held_out_R].any():
        raise MatfmError(f"{path}: no row that is held out has a label; raise data.held_out ({held_out_R.mean():.1%})")


def _completed(read: _Read, seed: int) -> Part:
    """The part of all rows, now that their targets are known."""
    tokens, part = read.encoded.tokens, read.part
    varied = part.varied
    if varied is not None:
        varied = VariedTokens(varied.sequences, tokens.targets_RK, varied.starts, seed)
    return Part(tokens, varied, read.key_R.view(np.int64), part.fingerprints_RW, part.units, part.pairs)


def _said(targets_RK: np.ndarray, columns: tuple[str, ...], path: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels in the units of texts, and the properties that they are.

    Raises:
        MatfmError: a column is no property that texts say, or two columns are the same.
    """
    names, factors = [], []
    for column in columns:
        metadata = column_metadata(path, column)
        name, factor = property_of_column(metadata.get("property", column), metadata.get("unit"))
        if name in names:
            raise MatfmError(f"{path}: two columns of data.targets hold the property {name!r}; leave {column!r} out")
        names.append(name)
        factors.append(factor)
    return targets_RK * np.array(factors, np.float32), tuple(names)


def _read_formulas(config: PretrainConfig, cells: list[str]) -> _Read:
    if config.scheme == "fraction":
        encoded = encode_formulas(cells)
    elif config.joint:
        ids = new_tokenizer(config).get_vocab()
        encoded = as_rows(encode_in_order(cells, lambda formula: line_ids(composition_line(formula), ids, UNK)))
    else:
        encoded = as_rows(OrderedFormulas(config.scheme, config.data.order)(cells))
    keys = [_composition_key(cells[row]) for row in encoded.rows.tolist()]
    return _Read(encoded, np.array(keys, np.uint64), Part(encoded.tokens))


def _composition_key(cell: str) -> int:
    """A number that depends only on the composition, however the formula is written."""
    formula: Formula = read_formula(cell)
    key = " ".join(f"{symbol}{fraction:.6f}" for symbol, fraction in sorted(formula.fractions.items()))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _read_molecules(config: PretrainConfig, cells: list[str], folder: Path, path: str) -> _Read:
    settings = config.data
    names = descriptor_names(settings.descriptors) if settings.descriptors else ()
    masked = any(objective.name == "masked" for objective in config.objectives)
    units = config.masking.scheme if masked and config.masking.scheme in UNIT_KINDS else ""
    plan = MoleculePlan(
        settings.kind,
        settings.from_smiles,
        settings.enumerations,
        units,
        names,
        settings.fingerprint_bits,
        config.seed,
        partners=config.joint,
    )
    found = describe_molecules(cells, plan, folder, settings.workers, Path(path).name)
    tokenizer = new_tokenizer(config)
    lines = encode_lines(found.texts, NOTATIONS[settings.kind], tokenizer.encoder, settings.max_length or None)
    nothing = np.zeros((len(found.texts), 0), np.float32)
    sequences = RaggedTokens(lines.ids_N, no_amounts(len(lines.ids_N)), lines.offsets, nothing)
    ways = settings.enumerations + 1
    tokens = sequences.take(np.arange(len(found.rows)) * ways) if ways > 1 else sequences
    encoded = EncodedRows(tokens, found.rows, found.errors)
    varied = VariedTokens.evenly(sequences, tokens.targets_RK, ways, config.seed) if ways > 1 else None
    notes = {"unknown_tokens": lines.unknown.total(), "truncated": lines.truncated}
    pairs = None
    if config.joint:
        partners = encode_lines(found.partners, NOTATIONS["selfies"], tokenizer.encoder)
        notes["unknown_tokens"] += partners.unknown.total()
        pairs = Pairs.of_molecules(ragged(partners.ids_N, partners.offsets), len(found.rows))
    part = Part(tokens, varied, None, found.fingerprints_RW, found.units, pairs)
    # A recipe may take a share of its molecules by the same hash; mixed, it holds out one that does not depend on that.
    return _Read(encoded, mixed_bits(found.key_R), part, found.descriptors_RD if names else None, names, notes)


def _token_file(config: PretrainConfig) -> Corpus:
    settings = config.data
    folder = Path(settings.tokens)
    tokens, _, meta = open_tokens(folder)
    _check_meta(config, folder, meta)
    if len(tokens) == 0:
        raise MatfmError(f"{folder} has no sequence")
    ordered = settings.kind != "composition" or config.scheme != "fraction"

    def held_out(rows: np.ndarray) -> np.ndarray:
        return shares_of(sequence_hashes(tokens, rows, ordered)) < settings.held_out

    found: list[np.ndarray] = []
    trained = scanned = 0
    for start in range(0, len(tokens), _SCANNED):
        rows = np.arange(start, min(start + _SCANNED, len(tokens)))
        chosen = held_out(rows)
        found.append(rows[chosen])
        trained, scanned = trained + int((~chosen).sum()), scanned + len(rows)
        if trained and sum(map(len, found)) >= settings.held_out_rows:
            break
    evaluated = np.concatenate(found)
    if trained == 0 or len(evaluated) == 0:
        raise MatfmError(f"{folder} has {len(tokens)} sequences, too few to hold out {settings.held_out:.0%}")
    return Corpus(
        Part(tokens, keep=lambda rows: ~held_out(rows)),
        Part(tokens.take(evaluated[: settings.held_out_rows])),
        (),
        rows_in=len(tokens),
        rows_used=len(tokens),
        rows_held_out=round(len(evaluated) / scanned * len(tokens)),
        notes={"rows_evaluated": min(len(evaluated), settings.held_out_rows)},
    )


def _check_meta(config: PretrainConfig, folder: Path, meta: dict[str, Any]) -> None:
    """Raise MatfmError if the tokens of a file are not those that this configuration reads."""
    settings = config.data
    if meta.get("kind") != settings.kind:
        raise MatfmError(f"{folder} holds tokens of kind {meta.get('kind')!r}, but data.kind is {settings.kind!r}")
    if settings.kind == "composition":
        wanted = {"scheme": config.scheme, **({} if config.scheme == "fraction" else {"order": settings.order})}
        said = {"scheme": "fraction", **meta}
        for name, value in wanted.items():
            if said.get(name) != value:
                raise MatfmError(
                    f"{folder} holds compositions in the {name} {said.get(name)!r}, but data.{name} is {value!r}; "
                    f"set data.{name}, or encode the table again with --{name} {value}"
                )
        return
    if meta.get("vocabulary_sha256") != vocabulary_digest(settings):
        named = f"data.vocabulary {settings.vocabulary!r}" if settings.vocabulary else "the shipped vocabulary"
        raise MatfmError(
            f"{folder} was encoded with another vocabulary ({meta.get('vocabulary')}) than {named}; give that one as "
            "data.vocabulary, or encode the table again"
        )


def _built_recipe(name: str, out: Path) -> str:
    recipe = load_recipe(name)
    path = out / "data" / f"{recipe.name}.parquet"
    data.run(data.BuildConfig(name, str(path.parent)))  # which builds nothing anew that is unchanged
    return str(path)


def _targets(
    table: Chunk, encoded: EncodedRows, names: tuple[str, ...], path: str
) -> tuple[np.ndarray, list[data.Reject]]:
    """Targets of the readable rows; cells that are not numbers are missing labels, and are reported."""
    rejects: list[data.Reject] = []
    targets_RK = np.full((len(encoded.rows), len(names)), np.nan, np.float32)
    for column, name in enumerate(names):
        cells = table.column(name, path)
        for position, row in enumerate(encoded.rows):
            try:
                targets_RK[position, column] = parse_number(cells[row])
            except MatfmError as error:
                rejects.append(data.Reject(int(row), name, cells[row], str(error)))
    return targets_RK, rejects
