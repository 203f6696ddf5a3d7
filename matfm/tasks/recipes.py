"""Declarative data recipes: what a data set is, where it comes from and how it is cleaned."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matfm.core.config import from_mapping
from matfm.errors import MatfmError


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

    def __post_init__(self) -> None:
        needed = {"package": ("name", "version", "file"), "url": ("url",), "file": ("file",)}
        if self.kind not in needed:
            raise MatfmError(f"source.kind is {self.kind!r}; choose one of {', '.join(needed)}")
        for name in needed[self.kind]:
            if not getattr(self, name):
                raise MatfmError(f"source.{name} is missing; a source of kind {self.kind!r} needs it")

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


@dataclass(frozen=True)
class SourceTable:
    """Members of the source that hold the same columns, laid one below the other."""

    members: dict[str, str]
    """Label (train, val, test, all) to path inside the archive."""
    input: str
    """Column with the formula; tables are joined on it."""
    columns: tuple[Column, ...]
    """Target columns."""
    split: str = ""
    """Name of a column that gets the members' labels; empty for none."""


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
class Recipe:
    """A data set."""

    name: str
    """Short name, as on the command line."""
    title: str
    """One line that says what it is."""
    version: str
    """Raised when the built table changes."""
    kind: str
    """composition or molecule."""
    rows: int
    """Rows of the built table; checked."""
    license: str
    """Licence of the data."""
    citation: tuple[str, ...]
    """Whom to cite."""
    source: Source
    """Where the file comes from."""
    tables: tuple[SourceTable, ...]
    """What is read from it."""
    notes: str = ""
    """What a user should know."""
    folds: Folds | None = None
    """Official folds."""
    published: tuple[Published, ...] = field(default_factory=tuple)
    """Published scores to show beside ours."""

    def column_units(self) -> dict[str, str]:
        """Target columns and their units."""
        return {column.name: column.unit for table in self.tables for column in table.columns}


def recipe_folder() -> Path:
    """Where the shipped recipes are: in the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "data_recipes"
    return shipped if shipped.is_dir() else package.parent / "data_recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a recipe of the user by path (ending in .toml)."""
    path = Path(name) if name.endswith(".toml") else recipe_folder() / f"{name}.toml"
    if not path.is_file():
        raise MatfmError(f"there is no recipe {name!r}; known ones: {', '.join(recipe_names())} (or a path to a .toml)")
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MatfmError(f"{path} is not valid TOML: {error}") from error
    for column in _columns(raw):
        column["source"] = column.pop("from", "target")
    return from_mapping(Recipe, raw, str(path))


def _columns(raw: dict[str, Any]) -> list[dict[str, Any]]:
    tables = raw.get("tables", [])
    return [column for table in tables for column in table.get("columns", [])]
