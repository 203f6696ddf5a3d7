"""Fenced blocks and calls of matfm in the Markdown pages, and what the command line knows of them.

What the fence of a block says: `bash` and `python` are run as they stand, page by page and from top to bottom; `sh` and
`py` take minutes, a cluster or a model that is not there, and are only parsed. All look the same to a reader. A block
with a title is the file of that name.
"""

import dataclasses
import re
import shlex
import typing
from dataclasses import dataclass
from pathlib import Path

import typer

from matfm.cli import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    text: str
    line: int
    """Of its first line in the page."""

    def calls(self):
        """The words of each call of matfm, without its name, that stands on a line of its own."""
        for line in self.text.replace("\\\n", " ").splitlines():
            started = re.match(r"(?:torchrun .*-m )?matfm (.*)", line.strip())
            if started:
                yield shlex.split(started[1], comments=True)


def blocks(page):
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(match[1], match[2], match[3], text.count("\n", 0, match.start()) + 2) for match in _FENCE.finditer(text)
    ]


def inline_code(page):
    """The code spans outside of blocks, on one line each."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _FENCE.sub("", page.read_text("utf-8")))]


def verbs(command=None, words=()):
    """Every command with the words that lead to it."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from verbs(inner, (*words, name))


VERBS = dict(verbs())


def verb_of(words):
    """The words that name the command, or None where a placeholder stands in its place or it is prose."""
    return next((words[:length] for length in (2, 1) if tuple(words[:length]) in VERBS), None)


def options_of(words):
    """The options of a command, with the ones that all have."""
    own = {name for parameter in VERBS[tuple(words)].params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"--help", "--debug"}


def has_key(config, path):
    """Whether a configuration has the key `path`, as `--set` names it."""
    name, _, rest = path.partition(".")
    fields = {field.name for field in dataclasses.fields(config)}
    if name not in fields:
        return False
    if not rest:
        return True
    kinds = [typing.get_type_hints(config)[name]]
    kinds += typing.get_args(kinds[0])
    return any(
        has_key(kind, rest) if dataclasses.is_dataclass(kind) else typing.get_origin(kind) is dict for kind in kinds
    )
