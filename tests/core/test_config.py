"""Strict configurations: overrides, types, and errors that name the key."""

from dataclasses import dataclass, field

import pytest

from matfm.core.config import apply_overrides, from_mapping, load_toml, to_mapping
from matfm.errors import MatfmError


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = field(default_factory=Inner)
    limit: float | None = None
    fast: bool = False


def test_overrides_reach_nested_keys_and_keep_types():
    values = apply_overrides({"steps": 3}, ["inner.rate=2", "inner.names=['a', 'b']", "fast=true", "limit=1e-3"])
    config = from_mapping(Outer, values, "test")
    assert config == Outer(3, Inner(2.0, ("a", "b")), 0.001, True)
    assert from_mapping(Outer, to_mapping(config), "test") == config


def test_overrides_do_not_change_what_they_are_laid_over():
    values = {"inner": {"rate": 1.0}}
    apply_overrides(values, ["inner.rate=5"])
    assert values == {"inner": {"rate": 1.0}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 1, "stepz": 2}, "unknown key stepz; did you mean steps?"),
        ({"steps": 1, "inner": {"ratio": 2}}, "unknown key inner.ratio"),
        ({}, "the key steps is missing"),
        ({"steps": "many"}, "steps is 'many'; it must be a whole number"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"steps": 1, "fast": 1}, "fast is 1; it must be true or false"),
        ({"steps": 1, "inner": 4}, "inner must be a section"),
        ({"steps": 1, "inner": {"names": "a"}}, "inner.names must be a list"),
    ],
)
def test_errors_name_the_key(values, message):
    with pytest.raises(MatfmError, match=message.replace("?", r"\?")):
        from_mapping(Outer, values, "test")


def test_bad_overrides_and_files(tmp_path):
    with pytest.raises(MatfmError, match="not of the form key=value"):
        apply_overrides({}, ["steps"])
    with pytest.raises(MatfmError, match="steps is a value, not a section"):
        apply_overrides({"steps": 1}, ["steps.x=1"])
    with pytest.raises(MatfmError, match="is not a file"):
        load_toml(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(MatfmError, match="is not valid TOML"):
        load_toml(str(tmp_path / "bad.toml"))
