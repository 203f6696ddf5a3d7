"""Readers of TOML and of settings on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz.target import ROOT, TOML_WORDS, Parse, Target, given, named, text_of


def _shipped(pattern: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(ROOT.glob(pattern)) if path.stat().st_size < 6_000]


_FIRST = b"""table = "t.csv"
input = "formula"
targets = ["gap"]
seed = 3
[fit]
epochs = 3.0
loss = "huber"
[fit.optimizer]
learning_rate = 1e-3
method = "muon"
"""
_SECOND = b"""table = "t.csv"
input = "s"
kind = "smiles"
targets = ["a", "b"]
task = "classification"
split = "scaffold"
valid_share = 0.1
test_share = 0.2
ensemble = 3
[fit]
strategy = "lora"
"""


def _config_of(module: str, name: str) -> Parse:
    def parse(content: bytes, folder: Path) -> object:
        from matfm.core.config import from_mapping, load_toml, to_mapping

        path = folder / "config.toml"
        path.write_bytes(content)
        config = from_mapping(named(module, name), load_toml(str(path)), str(path))
        return json.dumps(to_mapping(config), default=str)

    return parse


def _recipe(content: bytes, folder: Path) -> object:
    from matfm.tasks.recipes.recipe import load_recipe

    path = folder / "own.toml"
    path.write_bytes(content)
    recipe = load_recipe(str(path))
    return recipe.digest(), recipe.task(), recipe.column_units()


def _override(content: bytes, _: Path) -> object:
    from matfm.core.config import apply_overrides, from_mapping

    base = {"table": "t", "input": "i", "targets": ["y"]}
    values = apply_overrides(base, text_of(content).split("\x00"))
    return from_mapping(named("matfm.tasks.finetune", "FinetuneConfig"), values, "--set")


def _space(content: bytes, folder: Path) -> object:
    from matfm.core.config import load_toml
    from matfm.tasks.tuning.search_space import read_space

    path = folder / "space.toml"
    path.write_bytes(content)
    space = read_space(load_toml(str(path)), str(path))
    return [(parameter.samples(), parameter.entry(), parameter.holds(1)) for parameter in space]


def _spaces() -> list[bytes]:
    return [
        b'fit.dropout = { low = 0.0, high = 0.3, step = 0.1 }\nfit.loss = ["l1", "huber"]\n',
        b"[fit]\nepochs = [15, 30]\n[fit.optimizer]\nlearning_rate = { low = 1e-4, high = 5e-3, log = true }\n",
        b'[fit]\nlora_rank = { choices = [4, 8], only = { "fit.strategy" = ["lora"] } }\nstrategy = ["full", "lora"]\n',
    ]


TARGETS: dict[str, Target] = {
    "pretrain_config": Target(
        _config_of("matfm.tasks.pretrain", "PretrainConfig"), _shipped("matfm/models/configs/*.toml"), TOML_WORDS, 2
    ),
    "finetune_config": Target(
        _config_of("matfm.tasks.finetune", "FinetuneConfig"), lambda: [_FIRST, _SECOND], TOML_WORDS, 4
    ),
    "recipe": Target(_recipe, _shipped("data_recipes/*.toml"), (*TOML_WORDS, "extends", "[merge]", "own.toml"), 2),
    "override": Target(
        _override,
        given("fit.epochs=3", "fit.optimizer.learning_rate=1e-3", "seed=1\x00fit.loss=l2", "targets=['a','b']"),
        (*TOML_WORDS, "\x00", "fit."),
        6,
    ),
    "search_space": Target(_space, _spaces, (*TOML_WORDS, "fit.", "choices", "log", "only"), 4),
}
