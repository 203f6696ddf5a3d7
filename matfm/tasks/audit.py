"""Contamination: what pretraining sets share with evaluation sets, and whether a score would mean anything.

A row is shared if its reduced composition or its canonical SMILES occurs in pretraining; a label is shared if the
same substance occurs there with a label of the same family, and it is the very same label if both are of one origin.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matfm.core.bundled import resolve_weights
from matfm.core.files import write_json, write_text
from matfm.errors import MatfmError
from matfm.tasks.labelled_sets import Label, LabelledSet, SetLoader, keys_of_tests, summary_of

FORMAT = 1
FILE = "audit.json"
TABLE_FILE = "audit.md"
ALL = "all of them"
"""Name of the pretraining sets taken together."""


@dataclass(frozen=True)
class AuditConfig:
    """`matfm data audit`."""

    pretrain: tuple[str, ...]
    """Recipes (name or pattern) and tables; `NAME:a,b` says that only the labels a and b were used, `NAME:` none."""
    evaluate: tuple[str, ...]
    """Likewise, of the evaluation sets."""
    out: str | None = None
    """Folder for `audit.json` and `audit.md`: that of the weights."""
    input: str | None = None
    """Input column of tables that matfm did not build."""
    kind: str = "composition"
    """Kind of such tables: composition, smiles or selfies."""
    cache: str | None = None
    """Folder of fetched files."""
    offline: bool = False
    """Use only the cache."""

    def __post_init__(self) -> None:
        for name in ("pretrain", "evaluate"):
            if not getattr(self, name):
                raise MatfmError(f"--{name} is missing; name at least one recipe or table")


@dataclass(frozen=True)
class Verdict:
    """Whether weights may be scored on a benchmark."""

    allowed: bool
    sentence: str
    """What to print beside the score, or why there must be none."""
    contaminated_share: float
    """Share of the test rows whose substance occurs in pretraining, with whatever labels; 0 for other kinds."""


def run(config: AuditConfig) -> dict[str, Any]:
    """Compare every pretraining set with every evaluation set; writes the audit if `config.out` says where."""
    loader = SetLoader(config.cache, config.offline, config.input, config.kind)
    pretrain = [one for said in config.pretrain for one in loader.load(said)]
    evaluate = [one for said in config.evaluate for one in loader.load(said)]
    result = audit(pretrain, evaluate, loader)
    if config.out is not None:
        write_audit(Path(config.out), result)
    return {"task": "data audit", "out": config.out, **result}


def audit(
    pretrain: Sequence[LabelledSet], evaluate: Sequence[LabelledSet], loader: SetLoader | None = None
) -> dict[str, Any]:
    """What every evaluation set shares with every pretraining set, and with all of them together.

    Shares are those of the readable test rows of the evaluation set (of a label: of those that have it). Compositions
    are compared with compositions and molecules with molecules; other pairs are left out.
    """
    loader = loader or SetLoader()
    keys = [keys_of_tests(one, loader.of(one.kind)) for one in evaluate]
    pairs: list[dict[str, Any]] = []
    together: dict[str, list[_Seen]] = {one.name: [] for one in evaluate}
    for given in pretrain:
        comparable = [(one, own) for one, own in zip(evaluate, keys, strict=True) if _like(one.kind, given.kind)]
        wanted = {key for _, own in comparable for key in own if key}
        held = list(loader.of(given.kind).among(given.texts, wanted))
        for one, own in comparable:
            seen = _seen(one, own, given, held)
            together[one.name].append(seen)
            pairs.append(_pair(one, seen, given.name))
    pairs += [_pair(one, _joined(found), ALL) for one in evaluate if len(found := together[one.name]) > 1]
    return {
        "format": FORMAT,
        "pretrain": [summary_of(one) for one in pretrain],
        "evaluate": [summary_of(one) for one in evaluate],
        "pairs": pairs,
    }


@dataclass
class _Seen:
    """Test rows of an evaluation set that pretraining holds, as masks of shape (R,)."""

    readable_R: np.ndarray
    identical_R: np.ndarray
    family_R: dict[str, np.ndarray]
    """Label to rows whose substance has a label of the same family in pretraining."""
    same_R: dict[str, np.ndarray]
    """Label to rows whose very label was seen: the same family and origin."""
    by: dict[str, set[str]]
    """Label to the pretraining labels that share its family, as `set: column`."""


def _like(kind: str, other: str) -> bool:
    return (kind == "composition") == (other == "composition")


def _seen(one: LabelledSet, keys: list[str | None], given: LabelledSet, held: list[str | None]) -> _Seen:
    def rows_of(among: set[str | None]) -> np.ndarray:
        return np.array([key is not None and key in among for key in keys], bool)

    def held_with(label: Label) -> set[str | None]:
        return {key for key, known in zip(held, label.known_R, strict=True) if known}

    seen = _Seen(np.array([key is not None for key in keys], bool), rows_of(set(held)), {}, {}, {})
    holding = {label.column: held_with(label) for label in given.labels}
    for label in one.labels:
        none_R = np.zeros(len(keys), bool)
        alike = [other for other in given.labels if other.family == label.family]
        same = [other for other in alike if not label.origin or not other.origin or other.origin == label.origin]
        family_R = rows_of(set().union(*(holding[other.column] for other in alike))) if alike else none_R
        seen.family_R[label.column] = family_R
        seen.same_R[label.column] = rows_of(set().union(*(holding[o.column] for o in same))) if same else none_R
        seen.by[label.column] = {f"{given.name}: {other.column}" for other in alike} if family_R.any() else set()
    return seen


def _joined(parts: list[_Seen]) -> _Seen:
    first = parts[0]
    return _Seen(
        first.readable_R,
        np.logical_or.reduce([part.identical_R for part in parts]),
        {name: np.logical_or.reduce([part.family_R[name] for part in parts]) for name in first.family_R},
        {name: np.logical_or.reduce([part.same_R[name] for part in parts]) for name in first.same_R},
        {name: set().union(*(part.by[name] for part in parts)) for name in first.by},
    )


def _pair(one: LabelledSet, seen: _Seen, pretrain: str) -> dict[str, Any]:
    rows, identical = int(seen.readable_R.sum()), int(seen.identical_R.sum())
    labels = []
    for label in one.labels:
        scored_R = label.test_R & label.known_R & seen.readable_R
        count, family, same = (
            int((scored_R & mask_R).sum())
            for mask_R in (scored_R, seen.family_R[label.column], seen.same_R[label.column])
        )
        labels.append({
            "label": label.column,
            "family": label.family,
            "rows": count,
            "same_family": family,
            "same_family_share": _share(family, count),
            "same_label": same,
            "same_label_share": _share(same, count),
            "seen_in": sorted(seen.by[label.column]),
        })  # fmt: skip
    return {
        "pretrain": pretrain,
        "evaluate": one.name,
        "rows": rows,
        "identical": identical,
        "identical_share": _share(identical, rows),
        "labels": labels,
    }


def _share(count: int, total: int) -> float:
    return round(count / total, 6) if total else 0.0


def markdown(result: dict[str, Any]) -> str:
    """The audit as a table: one line for each pair and label."""
    lines = [
        "| pretraining | evaluation | label | test rows | same substance | with a label of the family | same label |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in result["pairs"]:
        start = f"| {pair['pretrain']} | {pair['evaluate']} |"
        for label in pair["labels"] or [None]:
            if label is None:
                lines.append(f"{start} | {pair['rows']:,} | {pair['identical_share']:.1%} | | |")
                continue
            family, same = f"{label['same_family_share']:.1%}", f"{label['same_label_share']:.1%}"
            shown = f"{label['label']} ({label['family']}) | {label['rows']:,} | {pair['identical_share']:.1%}"
            lines.append(f"{start} {shown} | {family} | {same} |")
    return "\n".join(lines) + "\n"


def write_audit(folder: Path, result: dict[str, Any]) -> None:
    """`audit.json` and `audit.md`, beside the card of the weights in `folder`."""
    write_json(folder / FILE, result)
    intro = (
        "# What pretraining shares with evaluation sets\n\nShares of test rows. A benchmark with a share above zero in "
        "the last column is not scored with these weights; the others are scored with their shares beside.\n\n"
    )
    write_text(folder / TABLE_FILE, intro + markdown(result))


def may_be_scored(weights: str, benchmark: str, label: str | None = None) -> Verdict:
    """Whether weights (bundled name or folder) may be scored on an evaluation set, by the audit beside their card.

    Labels of the same family by another method or from another source do not forbid a score; they are named beside it.
    A label of unknown origin counts as the same as any of its family.

    Args:
        weights: bundled name or folder.
        benchmark: name of the evaluation set in the audit.
        label: target column that is scored; None for every one of the set.

    Raises:
        MatfmError: the weights have no audit, or it does not know the evaluation set or the label.
    """
    result = read_audit(weights)
    pairs = [pair for pair in result["pairs"] if pair["evaluate"] == benchmark]
    if not pairs and benchmark in [one["name"] for one in result["evaluate"]]:
        return Verdict(True, f"{weights} was not pretrained on inputs of the kind of {benchmark}.", 0.0)
    if not pairs:
        raise MatfmError(
            f"the audit of {weights} does not cover {benchmark!r}; run matfm data audit --evaluate {benchmark}"
        )
    pair = pairs[-1]  # all pretraining sets together come last
    labels = [entry for entry in pair["labels"] if label in (None, entry["label"])]
    if label is not None and not labels:
        known = ", ".join(entry["label"] for entry in pair["labels"])
        raise MatfmError(f"{benchmark} has no label {label!r} in the audit of {weights}; it has {known}")
    for entry in labels:
        if entry["same_label"]:
            return Verdict(False, _refusal(weights, benchmark, entry), pair["identical_share"])
    said = [f"{pair['identical_share']:.1%} of the test rows of {benchmark} occur in the pretraining of {weights}"]
    said += [
        f"{entry['same_family_share']:.1%} with a {entry['family']} label of other origin ({_named(entry)})"
        for entry in labels
        if entry["same_family"]
    ]
    return Verdict(True, ", ".join(said) + "; none with the label that is scored.", pair["identical_share"])


def _refusal(weights: str, benchmark: str, entry: dict[str, Any]) -> str:
    return (
        f"{weights} must not be scored on {benchmark}: pretraining saw the {entry['family']} label of "
        f"{entry['same_label_share']:.1%} of its test rows ({_named(entry)})"
    )


def _named(entry: dict[str, Any]) -> str:
    return ", ".join(entry["seen_in"])


def require_scorable(weights: str, benchmark: str, label: str | None = None) -> Verdict:
    """`may_be_scored`, but labels seen in pretraining raise MatfmError."""
    verdict = may_be_scored(weights, benchmark, label)
    if not verdict.allowed:
        raise MatfmError(f"{verdict.sentence}; use weights without these labels, or pretrain with --exclude")
    return verdict


def external_labels(audit: dict[str, Any]) -> str | None:
    """The labels that pretraining used, set by set, as an audit says; None if there were none."""
    said = [f"{one['name']} ({', '.join(one['labels'])})" for one in audit["pretrain"] if one["labels"]]
    return "; ".join(said) or None


def read_audit(weights: str) -> dict[str, Any]:
    """The audit beside the card of weights (bundled name or folder).

    Raises:
        MatfmError: there is none, or it is not one.
    """
    path = Path(resolve_weights(weights)) / FILE
    if not path.is_file():
        raise MatfmError(f"{weights} has no {FILE}; run matfm data audit … --out {path.parent}")
    try:
        result = json.loads(path.read_text("utf-8"))
        if result["format"] != FORMAT:
            raise MatfmError(f"{path} has format {result['format']!r}; this version reads format {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, MatfmError):
            raise
        raise MatfmError(f"{path} is not an audit: {error!r}") from error
    return dict(result)
