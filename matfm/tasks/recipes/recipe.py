"""Declarative data recipes: what a data set is, where it comes from and how it is cleaned."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from matfm.core.config import from_mapping, to_mapping
from matfm.errors import MatfmError

INPUT_OF = {"composition": "formula", "smiles": "smiles", "element": "element"}
"""Kind of a recipe to the name of the input column of its table."""
INPUT_STATES = ("unchecked", "readable", "canonical")
TASKS = ("regression", "classification")
REDUCTIONS = ("first", "mean", "min")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")


@dataclass(frozen=True)
class Source:
    """One file, verified by its sha256 before use."""

    kind: str
    """package (one file of a Python package index, fetched by pip), url or file."""
    sha256: str
    """Hexadecimal digest of the file."""
    name: str = ""
    """Package name (kind = package)."""
    version: str = ""
    """Package version (kind = package)."""
    file: str = ""
    """File name in the index (package), or path relative to the recipe (file)."""
    url: str = ""
    """Address (kind = url)."""
    bytes: int = 0
    """Size of the file; 0 if not said."""

    def __post_init__(self) -> None:
        needed = {"package": ("name", "version", "file"), "url": ("url",), "file": ("file",)}
        if self.kind not in needed:
            raise MatfmError(f"source.kind is {self.kind!r}; choose one of {', '.join(needed)}")
        for name in needed[self.kind]:
            if not getattr(self, name):
                raise MatfmError(f"source.{name} is missing; a source of kind {self.kind!r} needs it")
        # The digest and the name become a path in the cache, and name and version an argument of pip.
        if not _DIGEST.fullmatch(self.sha256):
            raise MatfmError(f"source.sha256 is {self.sha256[:80]!r}; it is 64 digits 0-9 and a-f")
        for name in ("name", "version"):
            if self.kind == "package" and not _PLAIN.fullmatch(getattr(self, name)):
                raise MatfmError(f"source.{name} is {getattr(self, name)!r}; write letters, digits and . _ - + ! only")
        if self.kind != "file" and not _PLAIN.fullmatch(self.cache_name):
            raise MatfmError(f"source names the file {self.cache_name!r}; write letters, digits and . _ - + ! only")

    @property
    def cache_name(self) -> str:
        """Name of the file in the cache."""
        return Path(self.file or self.url).name


@dataclass(frozen=True)
class Column:
    """One target column."""

    name: str
    """Name in the built table."""
    property: str
    """Name of the property (its bounds come from `matfm.chem.units`)."""
    unit: str
    """Unit of the values."""
    source: str = "target"
    """Name in the source table (`from` in the recipe)."""
    range: tuple[float, float] | None = None
    """Values outside are dirty: they become missing and are listed."""
    placeholders: tuple[float, ...] = ()
    """Numbers that stand for a missing value in the source: likewise."""
    offset: float = 0.0
    """Added to every value, where source and unit differ by it: −log10(nM) and 9 make −log10(M)."""
    task: str = "regression"
    """regression or classification."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise MatfmError(f"task of column {self.name!r} is {self.task!r}; choose one of {', '.join(TASKS)}")


@dataclass(frozen=True)
class SourceTable:
    """Members of the source that hold the same columns, laid one below the other."""

    members: dict[str, str]
    """Label (train, val, test, all) to path inside the archive, or to the name of a source that is a table."""
    input: str
    """Column with the input (formula, SMILES, element); several tables are joined on it."""
    columns: tuple[Column, ...] = ()
    """Target columns."""
    keep: dict[str, str] = field(default_factory=dict)
    """Text columns that are kept as they are: name in the built table to name in the source."""
    split: str = ""
    """Name of a column that says train, val or test; empty for none."""
    split_from: str = ""
    """Source column that holds these labels; empty if the members' labels are meant."""
    descriptors: bool = False
    """Whether all other columns are numbers to be kept under their own names (tables of elements)."""


@dataclass(frozen=True)
class Folds:
    """Official cross-validation: scikit-learn's shuffled (Stratified)KFold on the row order."""

    count: int
    """Number of folds; the table gets columns fold_0 … with train and test."""
    seed: int
    """random_state."""
    sha256: str
    """Digest of the fold of every row (bytes of uint8), so that a changed algorithm is noticed."""
    stratify: str = ""
    """Column to stratify by; empty for plain KFold."""


@dataclass(frozen=True)
class Published:
    """A published score (mean and std over the official folds)."""

    model: str
    """Name of the method."""
    mae: float
    """Mean absolute error in the target's unit."""
    std: float
    """Standard deviation over folds."""
    source: str
    """Where the number is from."""


@dataclass(frozen=True)
class Part:
    """Rows of another recipe."""

    recipe: str
    """Name of a shipped recipe, or a pattern such as matbench_*."""
    split: tuple[str, ...] = ()
    """Only rows with one of these labels in the split column; none for all rows."""
    labels: tuple[str, ...] = ()
    """Target columns to carry over as <recipe>_<column>."""
    reduce: str = "first"
    """What is made of several labels of one row: first, mean or min."""
    share: float = 1.0
    """Share of these rows that is taken, chosen by a hash of the formula, SMILES or SELFIES as it is written."""
    balanced: bool = False
    """Only compositions that are charge neutral with every cation less electronegative than every anion, or metals
    alone (`matfm.chem.composition_validity`)."""

    def __post_init__(self) -> None:
        if self.reduce not in REDUCTIONS:
            raise MatfmError(
                f"reduce of part {self.recipe!r} is {self.reduce!r}; choose one of {', '.join(REDUCTIONS)}"
            )
        if not 0 < self.share <= 1:
            raise MatfmError(f"share of part {self.recipe!r} is {self.share}; it must be above 0 and at most 1")


@dataclass(frozen=True)
class Merge:
    """Rows of several recipes, each composition or molecule once, with the sources of every row."""

    parts: tuple[Part, ...]
    """In this order; a row stands where it occurs first."""
    without: tuple[Part, ...] = ()
    """Compositions or molecules that are left out."""


@dataclass(frozen=True)
class Recipe:
    """A data set."""

    name: str
    """Short name, as on the command line."""
    title: str
    """One line that says what it is."""
    version: str
    """Raised when the built table changes."""
    kind: str
    """composition, smiles or element."""
    rows: int
    """Rows of the built table; checked."""
    license: str
    """Licence of the data."""
    citation: tuple[str, ...]
    """Whom to cite."""
    source: Source | None = None
    """Where the file comes from; a merge has none of its own."""
    tables: tuple[SourceTable, ...] = ()
    """What is read from it."""
    merge: Merge | None = None
    """Other recipes that it is made of, instead of a source."""
    inputs: str = "unchecked"
    """unchecked: the build reads every input. readable: every input was read when the recipe was made, and the source
    is pinned by its digest, so the build takes them as they are. canonical: also, each molecule is there once, as
    canonical SMILES."""
    origin: str = ""
    """Who measured or computed the labels. Labels of one family and one origin on the same composition are the same."""
    notes: str = ""
    """What a user should know."""
    folds: Folds | None = None
    """Official folds."""
    published: tuple[Published, ...] = field(default_factory=tuple)
    """Published scores to show beside ours."""

    def __post_init__(self) -> None:
        if self.kind not in INPUT_OF:
            raise MatfmError(f"kind is {self.kind!r}; choose one of {', '.join(INPUT_OF)}")
        if self.inputs not in INPUT_STATES:
            raise MatfmError(f"inputs is {self.inputs!r}; choose one of {', '.join(INPUT_STATES)}")
        if self.merge is None and not (self.source and self.tables):
            raise MatfmError("a recipe needs [source] and [[tables]], or [merge]")
        if self.merge is not None and (self.source or self.tables):
            raise MatfmError("a recipe with [merge] has no [source] and no [[tables]] of its own")
        if self.merge is not None and self.kind != "composition" and any(part.balanced for part in self.merge.parts):
            raise MatfmError(f"balanced is for parts with compositions, but kind is {self.kind!r}")

    @property
    def input(self) -> str:
        """Name of the input column of the built table."""
        return INPUT_OF[self.kind]

    def columns(self) -> list[Column]:
        """Target columns."""
        return [column for table in self.tables for column in table.columns]

    def column_units(self) -> dict[str, str]:
        """Target columns and their units; those of a merge too."""
        if self.merge is None:
            return {column.name: column.unit for column in self.columns()}
        return {
            f"{name}_{label}": _unit_of(name, label)
            for part in self.merge.parts
            for name in matching([part.recipe])
            for label in part.labels
        }

    def task(self) -> str:
        """regression, classification, both, descriptors (of elements), or corpus (no target)."""
        tasks = sorted({column.task for column in self.columns()})
        if self.merge is not None and self.column_units():
            return "corpus, regression"
        return ", ".join(tasks) or ("descriptors" if self.kind == "element" else "corpus")

    def split_of(self, column: str) -> str:
        """Name of the split column that belongs to a target (or to the rows, for `""`); empty if there is none."""
        for table in self.tables:
            if table.split and (column in [c.name for c in table.columns] or (not column and not table.columns)):
                return table.split
        return ""

    def digest(self) -> str:
        """SHA-256 of everything the recipe (and, of a merge, its parts) says."""
        said: list[Any] = [to_mapping(self)]
        if self.merge is not None:
            named = matching([part.recipe for part in (*self.merge.parts, *self.merge.without)])
            said += [load_recipe(name).digest() for name in named]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def recipe_folder() -> Path:
    """Where the shipped recipes are: in the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[2]
    shipped = package / "data_recipes"
    return shipped if shipped.is_dir() else package.parent / "data_recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def matching(patterns: Sequence[str]) -> list[str]:
    """Names of the shipped recipes that the patterns (`matbench_*`) or names stand for, each once, and paths to .toml.

    Raises:
        MatfmError: a pattern that stands for nothing.
    """
    known = recipe_names()
    found: dict[str, None] = {}
    for pattern in patterns:
        fitting = [pattern] if pattern.endswith(".toml") else [n for n in known if fnmatchcase(n, pattern)]
        if not fitting:
            raise MatfmError(_unknown(pattern))
        found.update(dict.fromkeys(fitting))
    return list(found)


def _unit_of(name: str, label: str) -> str:
    """Unit of a column of another recipe."""
    units = load_recipe(name).column_units()
    if label not in units:
        raise MatfmError(f"the recipe {name} has no column {label!r} for a merge; its columns are {', '.join(units)}")
    return units[label]


def _unknown(name: str) -> str:
    known = recipe_names()
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`matfm data list` shows them"
    return f"there is no recipe {name!r}; {hint} (a recipe of your own is a path to a .toml)"


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a recipe of the user by path (ending in .toml)."""
    path = Path(name) if name.endswith(".toml") else recipe_folder() / f"{name}.toml"
    if not path.is_file():
        raise MatfmError(_unknown(name))
    return _loaded(path, ())


def _loaded(path: Path, within: tuple[Path, ...]) -> Recipe:
    """A recipe and, of a merge, a look at the recipes of the user that it names: none may lead back to itself."""
    here = path.resolve()
    if here in within:
        raise MatfmError(f"{path} is merged into itself; a recipe cannot be a part of its own parts")
    raw = read_recipe(path)
    for column in _sections(raw, "tables", "columns"):
        column["source"] = column.pop("from", "target")
    recipe = from_mapping(Recipe, raw, str(path))
    if recipe.merge is not None:
        for part in (*recipe.merge.parts, *recipe.merge.without):
            if part.recipe.endswith(".toml") and Path(part.recipe).is_file():
                _loaded(Path(part.recipe), (*within, here))
    return recipe


def _sections(raw: dict[str, Any], outer: str, inner: str) -> list[dict[str, Any]]:
    """The sections in lists of sections; what is no section is left to the check of the types."""
    tables = raw.get(outer)
    lists = [table.get(inner) for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
    return [entry for entries in lists if isinstance(entries, list) for entry in entries if isinstance(entry, dict)]


def read_recipe(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a recipe file says, laid over the file that its key `extends` names (relative to it).

    `below` are the files that extend this one.

    Raises:
        MatfmError: not TOML, or the extended file is not there, or extends this one.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MatfmError(f"{path} is not valid TOML: {error}") from error
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str) or not (path.parent / base).is_file():
        raise MatfmError(f"{path} extends {base!r}, which is not a file beside it")
    here = (*below, path.resolve())
    if (path.parent / base).resolve() in here:
        raise MatfmError(f"{path} extends {base!r}, which extends {path.name}; one of them must stand alone")
    return _laid_over(read_recipe(path.parent / base, here), raw)


def _laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Sections are joined key by key; everything else of `top` replaces what `base` says."""
    result = {**base, **top}
    for key in base.keys() & top.keys():
        if isinstance(base[key], dict) and isinstance(top[key], dict):
            result[key] = _laid_over(base[key], top[key])
    return result
