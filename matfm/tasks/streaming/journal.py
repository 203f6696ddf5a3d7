"""What a task that streams a table has done so far, on disk beside its output: a killed run goes on where it was.

The rows that are done are read again on resume, not computed again, and compared with what was read the first time, so
every format and standard input can be continued, and a table that was changed in between is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from matfm.core.bundled import resolve_weights
from matfm.core.files import sha256_of, write_text
from matfm.core.locks import alone
from matfm.errors import MatfmError, RunError
from matfm.tasks.tables import Chunk

FORMAT = 1
_STATE = "state.json"
Rows = TypeVar("Rows", bound=Chunk)


@dataclass
class Journal:
    """A folder with the position of a task in its table and what the task needs to go on."""

    folder: Path
    task: str
    """For messages: the verb, such as predict."""
    begun_with: dict[str, Any]
    """All that decides the output, as JSON."""
    chunks: int = 0
    """Chunks that are done."""
    rows: int = 0
    digest: str = ""
    """Of the content of these chunks, each with the digest before it."""
    saved: dict[str, Any] = field(default_factory=dict)
    """What the task last recorded; empty at the beginning."""

    @classmethod
    def open(cls, out: str, task: str, begun_with: dict[str, Any], resume: bool) -> Journal:
        """The journal of an output, `.NAME.unfinished` beside it; without `resume` an old one is dropped.

        Raises:
            MatfmError: the journal cannot be read, or was begun with something else.
        """
        path = Path(out)
        journal = cls(path.with_name(f".{path.name}.unfinished"), task, json.loads(json.dumps(begun_with)))
        if not resume:
            journal.close()
        elif journal.can_be_resumed:
            journal._load()
        return journal

    def pending(self, chunks: Iterator[Rows]) -> Iterator[Rows]:
        """The chunks that are not done yet.

        Raises:
            MatfmError: those that are done differ from what was read the first time.
        """
        digest = ""
        for _ in range(self.chunks):
            chunk = next(chunks, None)
            digest = "" if chunk is None else _digest(digest, chunk)
        if digest != self.digest:
            raise MatfmError(
                f"the table was changed since this matfm {self.task} began: its first {self.rows:,} rows differ; "
                "begin again without --resume"
            )
        yield from chunks

    def record(self, chunk: Chunk, saved: dict[str, Any]) -> None:
        """The next chunk is done, and what it made is safely on disk or in `saved` (JSON)."""
        self.advance(chunk)
        self.save(saved)

    def advance(self, chunk: Chunk) -> None:
        """The next chunk is done; a run that ends before `save` does it again."""
        self.chunks += 1
        self.rows += chunk.rows
        self.digest = _digest(self.digest, chunk)

    def save(self, saved: dict[str, Any]) -> None:
        """What all chunks so far made is safely on disk or in `saved` (JSON)."""
        self.saved = saved
        position = {"chunks": self.chunks, "rows": self.rows, "digest": self.digest}
        state = {"format": FORMAT, "begun_with": self.begun_with, **position, "saved": saved}
        write_text(self.folder / _STATE, json.dumps(state))

    @property
    def can_be_resumed(self) -> bool:
        """Whether anything was saved."""
        return (self.folder / _STATE).is_file()

    def close(self) -> None:
        """Nothing is left to resume: drop the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _load(self) -> None:
        path = self.folder / _STATE
        try:
            state = json.loads(path.read_text("utf-8"))
            found = state["format"]
            begun_with, self.saved = dict(state["begun_with"]), dict(state["saved"])
            self.chunks, self.rows, self.digest = int(state["chunks"]), int(state["rows"]), str(state["digest"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MatfmError(f"{path} cannot be read ({error}); begin again without --resume") from error
        if found != FORMAT:
            raise MatfmError(f"{path} has format {found!r}; begin again without --resume")
        for name in sorted(begun_with.keys() | self.begun_with.keys()):
            old, new = begun_with.get(name), self.begun_with.get(name)
            if old != new:
                raise MatfmError(
                    f"the interrupted matfm {self.task} was begun with another {name} ({old!r}, now {new!r}); "
                    "resume with the same one, or begin again without --resume"
                )


@contextmanager
def resumable(out: str) -> Iterator[None]:
    """Write a table as the only process that does; an interrupt becomes a sentence that says how to go on.

    Raises:
        MatfmError: another process writes it.
        RunError: the user interrupted.
    """
    path = Path(os.path.realpath(out))
    with alone(path.with_name(f".{path.name}.lock"), Path(out)):
        try:
            yield
        except KeyboardInterrupt as error:
            raise RunError(f"interrupted before {out} was written; go on with the same call and --resume") from error


def weights_digest(name: str) -> str:
    """What tells one model from another: the SHA-256 of its weights (of an ensemble, all)."""
    files = sorted(Path(resolve_weights(name)).rglob("model*.safetensors"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def _digest(before: str, chunk: Chunk) -> str:
    """SHA-256 of all cells of a chunk and of the digest before it."""
    content = hashlib.sha256(before.encode())
    for name, cells in chunk.columns.items():
        content.update("\x1f".join([name, *cells, "\x1e"]).encode("utf-8", "surrogatepass"))
    return content.hexdigest()
