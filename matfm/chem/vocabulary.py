"""Fixed vocabularies of line notations: built from data once, committed as JSON, never grown at encode time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matfm.core.files import write_text
from matfm.errors import MatfmError

SPECIAL_TOKENS: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Ids 0 to 4. Generation starts at [CLS] and ends at [SEP]."""

SHIPPED: tuple[str, ...] = ("smiles", "selfies")
"""Names of the vocabularies in the package."""

_FOLDER = Path(__file__).parent / "vocabularies"
_FORMAT = 1


@dataclass(frozen=True)
class Coverage:
    """What a vocabulary makes of a list of strings."""

    strings: int
    """Strings looked at."""
    tokens: int
    """Tokens in all of them, special tokens not counted."""
    unknown: dict[str, int]
    """Tokens outside the vocabulary, each with its number of occurrences, frequent ones first."""
    longest: int
    """Tokens of the longest string, special tokens not counted."""
    too_long: int
    """Strings that `max_length` would truncate; 0 if no limit was given."""


def build_vocabulary(
    texts: Iterable[str],
    split: Callable[[str], Sequence[str]],
    always: Iterable[str] = (),
    min_count: int = 1,
    max_size: int | None = None,
) -> list[str]:
    """Tokens of a corpus, without special tokens.

    Args:
        texts: strings of the corpus; read once, not kept.
        split: text to tokens.
        always: tokens that are in whatever the corpus holds; they come first, in this order.
        min_count: occurrences a token of the corpus needs.
        max_size: most tokens (those of `always` included); rare ones go first, ties in alphabetical order.

    Raises:
        MatfmError: `max_size` is smaller than the number of tokens of `always`.
    """
    first = list(dict.fromkeys(always))
    if max_size is not None and max_size < len(first):
        raise MatfmError(f"max_size is {max_size}, but {len(first)} tokens are always in the vocabulary")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text))
    known = set(first)
    frequent = [token for token, count in counts.items() if count >= min_count and token not in known]
    return [*first, *sorted(frequent, key=lambda token: (-counts[token], token))][:max_size]


def measure_coverage(
    texts: Iterable[str],
    split: Callable[[str], Sequence[str]],
    vocabulary: Iterable[str],
    max_length: int | None = None,
) -> Coverage:
    """Count strings, tokens, unknown tokens and strings of more than `max_length` tokens (two special ones added)."""
    known = frozenset(vocabulary)
    unknown: Counter[str] = Counter()
    strings = tokens = longest = too_long = 0
    for text in texts:
        parts = split(text)
        strings += 1
        tokens += len(parts)
        longest = max(longest, len(parts))
        too_long += max_length is not None and len(parts) + 2 > max_length
        unknown.update(part for part in parts if part not in known)
    return Coverage(strings, tokens, dict(unknown.most_common()), longest, too_long)


def save_vocabulary(path: Path, tokens: Sequence[str], sources: Sequence[str]) -> None:
    """Write a vocabulary and the names of the data it was built from."""
    content = {"format": _FORMAT, "sources": list(sources), "tokens": list(tokens)}
    write_text(path, json.dumps(content, indent=0, ensure_ascii=False) + "\n")


def load_vocabulary(source: str | Path) -> list[str]:
    """Tokens of a vocabulary file (or of a shipped one: `smiles`, `selfies`), without special tokens.

    Raises:
        MatfmError: there is no such file, or it is no vocabulary.
    """
    path = _FOLDER / f"{source}.json" if source in SHIPPED else Path(source)
    if not path.is_file():
        raise MatfmError(
            f"{path} is not a file; give a vocabulary written by matfm data vocab, or {' or '.join(SHIPPED)}"
        )
    try:
        content = json.loads(path.read_text("utf-8"))
        found, tokens = content["format"], [str(token) for token in content["tokens"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MatfmError(f"{path} is not a vocabulary ({error}); write one with matfm data vocab") from error
    if found != _FORMAT:
        raise MatfmError(f"{path}: format {found!r} is not {_FORMAT}; write it again with matfm data vocab")
    return tokens


def token_ids(tokens: Iterable[str]) -> dict[str, int]:
    """Token to id: the special tokens first, then those of a vocabulary."""
    return {token: index for index, token in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *tokens)))}
