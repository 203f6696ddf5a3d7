"""`matfm data encode` and `matfm data vocab`: tables of any size to token files and vocabularies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from matfm.chem.composition_encoder import EncodedFormulas, OrderedFormulas, encode_many_fractions
from matfm.chem.composition_schemes import SCHEMES
from matfm.chem.formula_text import ORDERS
from matfm.chem.line_corpus import EncodedLines, encode_lines, first_field
from matfm.chem.notations import NOTATIONS
from matfm.chem.vocabulary import SPECIAL_TOKENS, build_vocabulary, load_vocabulary, save_vocabulary, token_ids
from matfm.core.files import sha256_of
from matfm.core.token_files import TokenWriter
from matfm.errors import MatfmError
from matfm.tasks.rejects import Reject, RejectLog
from matfm.tasks.screening.library import Library, ShardChunk
from matfm.tasks.streaming.encoded import EncodeTally
from matfm.tasks.streaming.journal import Journal, resumable
from matfm.tasks.streaming.parallel import available_cores, map_in_order
from matfm.tasks.tables import iterate_table

KINDS = ("composition", *NOTATIONS)
CHUNK_ROWS = 20_000
SAVED_CHUNKS = 5
"""Chunks after which a killed run begins again at most; waiting for the disk takes time."""
EncodeCells = Callable[[list[str]], EncodedLines | EncodedFormulas]
_ARRAYS = "tokens"
"""Folder of the unfinished token file in that of the journal."""

_READABLE = "\0readable"
"""Name of the column that the workers get; no table has it."""


@dataclass(frozen=True)
class EncodeConfig:
    """`matfm data encode`."""

    table: str | tuple[str, ...]
    """Table to read, folder of tables, pattern (part_*.parquet), several of these, or - for CSV on standard input."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    out: str
    """Folder of the token file to write."""
    kind: str = "composition"
    """composition, smiles or selfies."""
    vocabulary: str | None = None
    """Vocabulary file of `matfm data vocab`; None for the shipped one. Compositions have the periodic table."""
    max_length: int | None = None
    """Most tokens of a string, special ones included; longer ones are cut and counted."""
    workers: int = 0
    """Processes; 0 for one per core."""
    on_bad: str = "skip"
    """skip or stop at cells that cannot be read."""
    scheme: str = ""
    """How compositions are written: fraction, repeat or count; empty for fraction."""
    order: str = ""
    """Order of the elements in the schemes repeat and count, as `data.order` of pretraining; empty for its default,
    electronegativity."""

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        if self.kind == "composition" and (self.vocabulary or self.max_length):
            raise MatfmError(
                "compositions have a fixed vocabulary and are never cut; leave --vocab and --max-length out"
            )
        if self.kind != "composition" and (self.scheme or self.order):
            raise MatfmError(f"--scheme and --order are for compositions, but --kind is {self.kind!r}; leave them out")
        for name, choices in (("scheme", tuple(SCHEMES)), ("order", ORDERS)):
            if getattr(self, name) not in ("", *choices):
                raise MatfmError(f"--{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if self.order and not self.is_ordered:
            raise MatfmError("--order means nothing in the scheme 'fraction'; give --scheme count, or leave it out")
        if self.max_length is not None and self.max_length < 3:
            raise MatfmError(f"--max-length is {self.max_length}; [CLS], one token and [SEP] make 3")
        if self.workers < 0:
            raise MatfmError(f"--workers is {self.workers}; give a number of processes, or 0 for one per core")

    @property
    def tables(self) -> tuple[str, ...]:
        """What is read."""
        return (self.table,) if isinstance(self.table, str) else self.table

    @property
    def is_ordered(self) -> bool:
        """Whether rows are strings, rather than sets of elements with amounts beside."""
        return self.kind != "composition" or self.scheme not in ("", "fraction")


@dataclass(frozen=True)
class VocabConfig:
    """`matfm data vocab`."""

    table: str
    """Table to read, or - for CSV on standard input."""
    input: str
    """Column with the SMILES or SELFIES."""
    out: str
    """Vocabulary file (.json) to write."""
    kind: str = "smiles"
    """smiles or selfies."""
    min_count: int = 1
    """Occurrences a token needs."""
    max_size: int | None = None
    """Most tokens."""
    keep_shipped: bool = True
    """Whether the atoms, bonds and rings of the shipped vocabulary that no corpus is needed for come first."""

    def __post_init__(self) -> None:
        if self.kind not in NOTATIONS:
            raise MatfmError(f"kind is {self.kind!r}; a vocabulary is built for one of {', '.join(NOTATIONS)}")


def encode(config: EncodeConfig, resume: bool = False) -> dict[str, Any]:
    """Write the token file, with `rejects.csv` in it; returns the summary. `resume` continues an interrupted one.

    Raises:
        MatfmError: the call or a table is wrong, or a cell with `on_bad = "stop"`.
        RunError: a worker process was ended.
    """
    with resumable(config.out):
        if Path(config.out).exists():
            raise MatfmError(f"{config.out} exists already; choose another --out or remove it")
        library = Library.open(*config.tables)
        encode_cells, meta = _encoder(config)
        chunks = _chunks(config, library)
        first = next(chunks)
        journal = Journal.open(config.out, "data encode", _begun_with(config, meta), resume)
        try:
            return _encode(config, library, journal, chain([first], chunks), encode_cells, meta)
        finally:
            if not journal.can_be_resumed:
                journal.close()


def _encode(
    config: EncodeConfig,
    library: Library,
    journal: Journal,
    chunks: Iterator[ShardChunk],
    encode_cells: EncodeCells,
    meta: dict[str, Any],
) -> dict[str, Any]:
    """Encode what is pending; every few chunks the journal has it."""
    workers = config.workers or available_cores()
    folder = journal.folder / _ARRAYS
    at, tally = _position(config, journal)
    several = len(library.shards) > 1
    rejects = RejectLog(folder / "rejects.csv", at["rejects_bytes"], several)
    with (
        closing(rejects),
        TokenWriter(folder, not config.is_ordered, at["tokens"], at["sequences"]) as writer,
        tqdm(desc="encode", unit="row", initial=journal.rows, disable=None, leave=False) as bar,
    ):
        for chunk, encoded in map_in_order(encode_cells, journal.pending(chunks), _READABLE, workers):
            errors = {**encoded.errors, **chunk.errors}
            written = rejects.write(_rejects(config, chunk, errors))
            amounts_N = encoded.amounts_N if isinstance(encoded, EncodedFormulas) and not config.is_ordered else None
            writer.append(encoded.ids_N, encoded.offsets, encoded.rows + chunk.first_row, amounts_N)
            tally.add(chunk, encoded, errors)
            journal.advance(chunk)
            if journal.chunks % SAVED_CHUNKS == 0:
                writer.save()
                at = {"tokens": writer.tokens, "sequences": writer.sequences, "rejects_bytes": written}
                journal.save({"at": at, "tally": tally.state()})
            bar.update(chunk.rows)
        rejects.close()
        of_shards = {"shards": tally.shards} if several else {}
        counts = {"unknown_tokens": tally.unknown_tokens, "truncated": tally.truncated}
        writer.finish(Path(config.out), {**meta, **of_shards, **counts})
    journal.close()
    return {
        "task": "encode",
        "out": config.out,
        "kind": config.kind,
        "shards": len(tally.shards),
        **tally.summary(),
        "tokens": writer.tokens,
        "workers": workers,
    }


def _begun_with(config: EncodeConfig, meta: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the token file, beside the tables."""
    said = ("kind", "scheme", "order", "vocabulary_sha256")
    return {
        **{name: meta.get(name) for name in said},
        "input": config.input,
        "max_length": config.max_length,
        "rows of a chunk": CHUNK_ROWS,
    }


def _position(config: EncodeConfig, journal: Journal) -> tuple[dict[str, int], EncodeTally]:
    """Where an interrupted run was, or the beginning."""
    if not journal.saved:
        return {"tokens": 0, "sequences": 0, "rejects_bytes": 0}, EncodeTally()
    tally = EncodeTally.of_state(journal.saved["tally"])
    if tally.rejected and config.on_bad == "stop":
        raise MatfmError(
            f"the interrupted run has left out {tally.rejected:,} rows that cannot be read; resume it with "
            "--on-bad skip, or begin again without --resume"
        )
    return dict(journal.saved["at"]), tally


def _rejects(config: EncodeConfig, chunk: ShardChunk, errors: Mapping[int, str]) -> list[Reject]:
    """The rows of a chunk that cannot be read. Raises MatfmError for the first one where the user wants that."""
    cells = chunk.columns[config.input]
    listed = [
        Reject(chunk.row_in_shard + row, config.input, cells[row], errors[row], chunk.shard) for row in sorted(errors)
    ]
    if listed and config.on_bad == "stop":
        bad = listed[0]
        raise MatfmError(f"{bad.file}, row {bad.row}, column {bad.column!r}: {bad.reason} (--on-bad stop)")
    return listed


def vocab(config: VocabConfig) -> dict[str, Any]:
    """Write the vocabulary of a corpus; returns the summary."""
    notation = NOTATIONS[config.kind]
    rows = 0

    rejected = 0

    def texts() -> Iterator[str]:
        nonlocal rows, rejected
        with tqdm(desc="vocabulary", unit="row", disable=None, leave=False) as bar:
            for chunk in iterate_table(config.table, CHUNK_ROWS):
                cells = chunk.column(config.input, config.table)
                fields = [first_field(cell) for row, cell in enumerate(cells) if row not in chunk.errors]
                found = [field for field in fields if field]
                yield from found
                rows += chunk.rows
                rejected += chunk.rows - len(found)
                bar.update(chunk.rows)

    always = _always(config.kind) if config.keep_shipped else ()
    tokens = build_vocabulary(texts(), notation.split, always, config.min_count, config.max_size)
    tokens = [token for token in tokens if token not in SPECIAL_TOKENS]
    source = (
        config.table if config.table == "-" else f"{Path(config.table).name} sha256:{sha256_of(Path(config.table))}"
    )
    save_vocabulary(Path(config.out), tokens, [source])
    return {
        "task": "vocab",
        "out": config.out,
        "kind": config.kind,
        "rows_in": rows,
        "rows_rejected": rejected,
        "tokens": len(tokens) + len(SPECIAL_TOKENS),
        "from_the_corpus": len(set(tokens) - set(always)),
    }


def _chunks(config: EncodeConfig, library: Library) -> Iterator[ShardChunk]:
    """The input column as written, and once more with empty cells for rows that cannot be read as a whole."""
    for chunk in library.chunks(CHUNK_ROWS):
        cells = chunk.column(config.input, chunk.shard)
        readable = ["" if row in chunk.errors else cell for row, cell in enumerate(cells)] if chunk.errors else cells
        yield replace(chunk, columns={config.input: cells, _READABLE: readable})


def _encoder(config: EncodeConfig) -> tuple[EncodeCells, dict[str, Any]]:
    """The function that the workers apply to a list of cells, and what the token file says of its vocabulary."""
    if config.kind == "composition":
        meta = {"kind": config.kind, "vocabulary": "periodic table", "scheme": config.scheme or "fraction"}
        if not config.is_ordered:
            return encode_many_fractions, meta
        order = config.order or "electronegativity"
        return OrderedFormulas(config.scheme, order), {**meta, "order": order}
    notation = NOTATIONS[config.kind]
    ids = token_ids(load_vocabulary(config.vocabulary or config.kind))
    meta = {
        "kind": config.kind,
        "vocabulary": config.vocabulary or "shipped",
        "vocabulary_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    encoder = notation.encoder(ids)
    return partial(encode_lines, notation=notation, encoder=encoder, max_length=config.max_length), meta


def _always(kind: str) -> tuple[str, ...]:
    """Tokens of the shipped vocabulary that no corpus is needed for."""
    from matfm.chem import selfies_tokenizer, smiles_tokenizer

    return {"smiles": smiles_tokenizer.ALWAYS, "selfies": selfies_tokenizer.ALWAYS}[kind]


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
