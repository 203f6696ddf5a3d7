"""`matfm translate`: a table of any size in, every row in another notation or in words out, streaming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from matfm.chem.composition_schemes import UNK
from matfm.chem.joint_tokenizer import ANSWER, JOINT, TASKS, JointTokenizer, line_ids
from matfm.chem.property_text import PHRASES, property_of_column
from matfm.chem.translation import READS, Source, Translation, read_source, read_translation
from matfm.core.bundled import resolve_weights
from matfm.errors import MatfmError
from matfm.models.matt5 import MatT5ForConditionalGeneration
from matfm.models.saving import load_model, saved_tokenizer
from matfm.models.translating import translate_ids
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import EncodedRows
from matfm.tasks.examples import Examples
from matfm.tasks.pretraining.pairs import ragged, source_ids
from matfm.tasks.streaming.journal import weights_digest
from matfm.tasks.streaming.rows import RowStream
from matfm.tasks.tables import check_output

NOTATIONS = ("selfies", "smiles", "text", "composition")
"""What can be asked for; from SMILES, SELFIES, formulas and texts, in this order."""
_COLUMNS = {
    "translation": pa.string(),
    "canonical": pa.string(),
    "same": pa.bool_(),
    "problem": pa.string(),
}


@dataclass(frozen=True)
class TranslateConfig:
    """`matfm translate`."""

    model: str
    """Bundled name, folder, Hub id or run directory of a MatT5 that was trained to translate."""
    table: str
    """Table to read, or - for CSV on standard input."""
    input: str
    """Column with SMILES (to selfies), SELFIES (to smiles), formulas (to text) or texts (to composition)."""
    out: str
    """Table to write."""
    to: str
    """selfies, smiles, text or composition."""
    ask: tuple[str, ...] = ()
    """Properties of formulas to answer, instead of a text of the model's choice; only to text."""
    beams: int = 1
    """Beams of the search; 1 is greedy."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.to not in NOTATIONS:
            raise MatfmError(f"--to is {self.to!r}; choose one of {', '.join(NOTATIONS)}")
        if self.ask and self.to != "text":
            raise MatfmError("--ask is for formulas, whose properties are answered in words; give --to text")
        if self.beams < 1:
            raise MatfmError(f"--beams is {self.beams}; it must be at least 1")
        check_output(self.out, self.table)


def run(config: TranslateConfig, resume: bool = False) -> dict[str, Any]:
    """Write one row per input row, in order; unreadable rows get empty values and a reason in `error`.

    `resume` continues an interrupted one.
    """
    translator = load_translator(config.model, config.to, config.ask, config.beams, config.device)

    def compute(examples: Examples, cells: list[str]) -> dict[str, np.ndarray]:
        made = translator.of_tokens(examples, [translator.read(cell) for cell in cells])
        return {
            "translation": _column([each.text for each in made]),
            "canonical": _column([each.canonical for each in made]),
            "same": _column([each.same for each in made]),
            "problem": _column([each.problem for each in made]),
        }

    encoder = SourceEncoder(translator)
    stream = RowStream(
        config.table,
        config.input,
        config.out,
        encoder,
        _COLUMNS,
        label="translate",
        begun_with={
            "model": weights_digest(config.model),
            "to": config.to,
            "ask": translator.asked,
            "beams": config.beams,
        },
        count=_counted,
    )
    summary = stream.run(compute, resume)
    return {
        "task": "translate",
        "model": config.model,
        "from": encoder.kind,
        "to": config.to,
        "out": config.out,
        "beams": config.beams,
        "rows_in": summary.pop("rows_in"),
        "rows_translated": summary.pop("rows_done"),
        "rows_with_problem": summary.pop("rows_with_problem", 0),
        **summary,
    }


@dataclass(frozen=True)
class Translator:
    """A model with one task.

    Calling it with cells gives a `Translation` each, or the `MatfmError` that says why the cell cannot be read.
    """

    model: MatT5ForConditionalGeneration
    tokenizer: JointTokenizer
    task: str
    """One of `matfm.chem.joint_tokenizer.TASKS`."""
    asked: tuple[str, ...] = ()
    """Properties that the task `<answer>` asks for."""
    beams: int = 1
    ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", self.tokenizer.get_vocab())

    def __call__(self, cells: Sequence[str]) -> list[Translation | MatfmError]:
        """Translate; the order is that of the cells."""
        made: list[Translation | MatfmError | None] = [None] * len(cells)
        sources: dict[int, Source] = {}
        for place, cell in enumerate(cells):
            try:
                sources[place] = self.read(cell)
            except MatfmError as error:
                made[place] = error
        found = self._translated([self.encode(source) for source in sources.values()], list(sources.values()))
        for place, translation in zip(sources, found, strict=True):
            made[place] = translation
        return [each for each in made if each is not None]

    def read(self, cell: str) -> Source:
        """What a cell says. Raises MatfmError."""
        return read_source(cell, self.task, self.asked)

    def encode(self, source: Source) -> list[int]:
        """Ids of a source."""
        return source_ids(self.task, line_ids(source.line, self.ids, UNK), self.ids)

    def of_tokens(self, examples: Examples, sources: list[Source]) -> list[Translation]:
        """Translations of sources that were encoded."""
        tokens = examples.tokens
        rows = np.split(tokens.ids_N, tokens.offsets[1:-1])
        return self._translated([row.tolist() for row in rows], sources)

    def _translated(self, encoded: list[list[int]], sources: list[Source]) -> list[Translation]:
        found = translate_ids(self.model, encoded, self.model.device, self.beams)
        lines = self.tokenizer.batch_decode([target.ids for target in found], skip_special_tokens=True)
        return [
            read_translation(line, self.task, source, target.ended)
            for line, source, target in zip(lines, sources, found, strict=True)
        ]


@dataclass(frozen=True)
class SourceEncoder:
    """Cells of a column as sources of a translator."""

    translator: Translator

    @property
    def kind(self) -> str:
        """smiles, selfies, composition or text."""
        return READS[self.translator.task]

    @property
    def tokenizer(self) -> JointTokenizer:
        """Of the model."""
        return self.translator.tokenizer

    def __call__(self, cells: list[str]) -> EncodedRows:
        """Sources of a column; cells that cannot be read are reported, not raised."""
        rows, encoded, errors = [], [], {}
        unknown: Counter[str] = Counter()
        for row, cell in enumerate(cells):
            try:
                source = self.translator.read(cell)
            except MatfmError as error:
                errors[row] = str(error)
                continue
            rows.append(row)
            encoded.append(self.translator.encode(source))
            if UNK in encoded[-1]:
                unknown.update(token for token in JOINT.split(source.line) if token not in self.translator.ids)
        ids = np.fromiter((index for row in encoded for index in row), np.uint16)
        tokens = ragged(ids, np.cumsum([0, *map(len, encoded)]))
        return EncodedRows(tokens, np.array(rows, np.int64), errors, {}, unknown)


def load_translator(
    name: str, to: str, ask: Sequence[str] = (), beams: int = 1, device: str | torch.device = "auto"
) -> Translator:
    """A model by name, with what it is asked to do; arguments as in `TranslateConfig`.

    Raises:
        MatfmError: there is no such model, it was not trained for this, or it does not know a property.
    """
    model = load_model(MatT5ForConditionalGeneration, name)
    known = model.config.translation_tasks or []
    task = ANSWER if ask else f"<to_{to}>"
    if task not in TASKS or task.strip("<>") not in known:
        what = f"it was trained for {', '.join(known)}" if known else "it was not trained to translate"
        raise MatfmError(f"{name} has no task {task.strip('<>')!r}: {what}; see docs/translation.md")
    asked = tuple(dict.fromkeys(property_of_column(each)[0] for each in ask))
    answered = [each for each in model.config.translation_properties or [] if each in PHRASES]
    for each in asked:
        if each not in answered:
            raise MatfmError(f"--ask: {name} was not trained on {each!r}; it answers {', '.join(answered)}")
    return Translator(
        model.to(resolve_device(str(device))),
        saved_tokenizer(JointTokenizer, resolve_weights(name)),
        task,
        asked,
        beams,
    )


def _counted(columns: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Translations that cannot be read, and of molecules those that are the input's."""
    same = [each for each in columns["same"] if each is not None]
    unreadable = sum(each is None for each in columns["canonical"])
    return {"rows_with_problem": unreadable, **({"rows_same": sum(same)} if same else {})}


def _column(values: list[Any]) -> np.ndarray:
    """Values with gaps, as they are."""
    column = np.empty(len(values), object)
    column[:] = values
    return column
