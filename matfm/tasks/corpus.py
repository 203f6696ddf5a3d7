"""`matfm data encode` and `matfm data vocab`: tables of any size to token files and vocabularies."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from matfm.chem.composition_encoder import EncodedFormulas, encode_many_fractions
from matfm.chem.line_corpus import EncodedLines, encode_lines, first_field
from matfm.chem.notations import NOTATIONS
from matfm.chem.vocabulary import SPECIAL_TOKENS, build_vocabulary, load_vocabulary, save_vocabulary, token_ids
from matfm.core.files import sha256_of
from matfm.core.token_files import token_writer
from matfm.errors import MatfmError
from matfm.tasks.readings import readings_to_check
from matfm.tasks.rejects import Reject, reject_writer
from matfm.tasks.streaming.parallel import available_cores, map_in_order
from matfm.tasks.tables import Chunk, iterate_table

KINDS = ("composition", *NOTATIONS)
CHUNK_ROWS = 20_000
_NAMED = 20
"""Unknown tokens that the summary names."""

_READABLE = "\0readable"
"""Name of the column that the workers get; no table has it."""


@dataclass(frozen=True)
class EncodeConfig:
    """`matfm data encode`."""

    table: str
    """Table to read, or - for CSV on standard input."""
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

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        if self.kind == "composition" and (self.vocabulary or self.max_length):
            raise MatfmError(
                "compositions have a fixed vocabulary and are never cut; leave --vocab and --max-length out"
            )
        if self.max_length is not None and self.max_length < 3:
            raise MatfmError(f"--max-length is {self.max_length}; [CLS], one token and [SEP] make 3")
        if self.workers < 0:
            raise MatfmError(f"--workers is {self.workers}; give a number of processes, or 0 for one per core")


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


def encode(config: EncodeConfig) -> dict[str, Any]:
    """Write the token file, with `rejects.csv` in it; returns the summary."""
    workers = config.workers or available_cores()
    rows = rejected = truncated = 0
    unknown: Counter[str] = Counter()
    warnings: dict[int, str] = {}
    encode_cells, meta = _encoder(config)
    with (
        token_writer(Path(config.out), config.kind == "composition", meta) as writer,
        reject_writer(writer.folder / "rejects.csv") as reject,
        tqdm(desc="encode", unit="row", disable=None, leave=False) as bar,
    ):
        for chunk, encoded in map_in_order(encode_cells, _chunks(config), _READABLE, workers):
            cells = chunk.columns[config.input]
            for row, reason in sorted({**encoded.errors, **chunk.errors}.items()):
                if config.on_bad == "stop":
                    place = f"{config.table}, row {chunk.first_row + row}, column {config.input!r}"
                    raise MatfmError(f"{place}: {reason} (--on-bad stop)")
                reject(Reject(chunk.first_row + row, config.input, cells[row], reason))
                rejected += 1
            rows += chunk.rows
            rows_R = encoded.rows + chunk.first_row
            if isinstance(encoded, EncodedLines):
                writer.append(encoded.ids_N, encoded.offsets, rows_R)
                unknown.update(encoded.unknown)
                truncated += encoded.truncated
            else:
                writer.append(encoded.ids_N, encoded.offsets, rows_R, encoded.amounts_N)
                warnings.update({chunk.first_row + row: reading for row, reading in encoded.warnings.items()})
            bar.update(chunk.rows)
        meta.update(unknown_tokens=unknown.total(), truncated=truncated)
    return {
        "task": "encode",
        "out": config.out,
        "kind": config.kind,
        "rows_in": rows,
        "rows_used": writer.sequences,
        "rows_rejected": rejected,
        **readings_to_check(warnings),
        "tokens": writer.tokens,
        "unknown_tokens": unknown.total(),
        "unknown": dict(unknown.most_common(_NAMED)),
        "truncated": truncated,
        "workers": workers,
    }


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


def _chunks(config: EncodeConfig) -> Iterator[Chunk]:
    """The input column as written, and once more with empty cells for rows that cannot be read as a whole."""
    for chunk in iterate_table(config.table, CHUNK_ROWS):
        cells = chunk.column(config.input, config.table)
        readable = ["" if row in chunk.errors else cell for row, cell in enumerate(cells)] if chunk.errors else cells
        yield Chunk({config.input: cells, _READABLE: readable}, chunk.first_row, chunk.errors)


def _encoder(config: EncodeConfig) -> tuple[Callable[[list[str]], EncodedLines | EncodedFormulas], dict[str, Any]]:
    """The function that the workers apply to a list of cells, and what the token file says of its vocabulary."""
    if config.kind == "composition":
        return encode_many_fractions, {"kind": config.kind, "vocabulary": "periodic table"}
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
