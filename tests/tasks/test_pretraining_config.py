"""What configurations of `matfm pretrain` mean, what they refuse, and the examples that ship."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

import matfm
from matfm import MatfmError
from matfm.chem.masking import MaskingConfig
from matfm.core.config import apply_overrides, from_mapping, load_toml
from matfm.core.loop_config import LoopOptions
from matfm.tasks import corpus
from matfm.tasks.pretrain import CorpusConfig, ModelConfig, PretrainConfig, TrainConfig, run
from matfm.tasks.pretraining.contrastive import ContrastiveObjective
from matfm.tasks.pretraining.objectives import TERMS
from matfm.tasks.pretraining.setting import Objective

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()
CONFIGS = Path(matfm.__file__).parent / "models" / "configs"
QUICK = ("device=cpu", "model.size=tiny", "train.steps=2", "train.evaluations=1", "train.tokens_per_batch=1500")


def read(*settings, **values):
    return from_mapping(PretrainConfig, apply_overrides(values, settings), "c.toml")


def molecules(**more):
    return {"kind": "smiles", "table": "t.csv", **more}


def names(config):
    return [(objective.name, objective.weight) for objective in config.objectives]


def test_without_objectives_everything_that_the_data_offers_is_learned():
    both = read(data={"table": "t.csv", "targets": ["gap"]}, train={"masked_weight": 0.3})
    assert names(both) == [("property", 1.0), ("masked", 0.3)]
    assert names(read(data={"table": "t.csv"})) == [("masked", 1.0)]
    computed = read(data=molecules(descriptors="rdkit", fingerprint_bits=64))
    assert names(computed) == [("descriptors", 1.0), ("fingerprint", 1.0), ("masked", 0.1)]
    assert names(read(data=molecules(), model={"family": "matgpt"})) == [("causal", 1.0)]
    assert names(read(data=molecules(), model={"family": "matt5"})) == [("span", 1.0)]


def test_sections_of_objectives_have_their_own_keys():
    terms = [{"name": "contrastive", "temperature": 0.2, "view": "noise", "noise": {"masked": 0.3}}, {"name": "masked"}]
    contrastive, masked = read(data=molecules(), objective=terms).objective
    assert isinstance(contrastive, ContrastiveObjective)
    assert (contrastive.temperature, contrastive.noise.masked, masked.weight) == (0.2, 0.3, 1.0)
    with pytest.raises(MatfmError, match=r"unknown key objective\[0\].temperature"):
        read(data=molecules(), objective=[{"name": "masked", "temperature": 0.2}])
    assert (
        read("objective=[{name='causal'}]", data=molecules(), model={"family": "matgpt"}).objective[0].name == "causal"
    )


def test_defaults_follow_the_kind_and_the_family():
    formulas, strings = read(data={"table": "t.csv"}), read(data=molecules())
    assert (formulas.scheme, formulas.position_embedding, formulas.length_pool) == ("fraction", "none", 1)
    assert (strings.position_embedding, strings.length_pool, strings.data.column) == ("rotary", 64, "smiles")
    assert read(data={"table": "t.csv"}, model={"family": "matgpt"}).scheme == "count"
    assert read(data={"table": "t.csv", "scheme": "count"}).position_embedding == "rotary"
    assert read(data=molecules(kind="selfies")).data.column == "selfies"
    assert read(data=molecules(kind="selfies", from_smiles=True)).data.column == "smiles"


REFUSED = [
    ({"data": {}}, "data.recipe, data.table and data.tokens: give exactly one of them, not 0"),
    ({"data": {"table": "t", "tokens": "x"}}, "not 2"),
    ({"data": {"table": "t", "on_bad": "ask"}}, "data.on_bad is 'ask'; choose one of skip, stop"),
    ({"data": {"table": "t", "kind": "inchi"}}, "data.kind is 'inchi'; choose one of composition, smiles, selfies"),
    ({"data": {"table": "t", "descriptors": "rdkit"}}, "data.descriptors is for molecules"),
    ({"data": molecules(scheme="count")}, "data.scheme is for compositions"),
    ({"data": molecules(from_smiles=True)}, "needs data.kind = 'selfies'"),
    ({"data": molecules(fingerprint_bits=100)}, "must be a multiple of 8"),
    ({"data": {"tokens": "x", "targets": ["gap"]}}, "data.targets needs the rows of a table"),
    ({"data": {"table": "t", "scheme": "fraction"}, "model": {"family": "matgpt"}}, "matgpt does not read; take 'count'"),
    ({"data": molecules(), "model": {"family": "gpt"}}, "model.family is 'gpt'; choose one of matbert, matgpt, matt5"),
    ({"data": molecules(), "model": {"family": "matgpt", "position_embedding": "none"}}, "matgpt has rotary positions"),
    ({"data": molecules(), "objective": [{"name": "causal"}]},
     "model.family 'matbert' cannot learn the objective 'causal'; it learns masked, property, amounts"),
    ({"data": molecules(), "model": {"family": "matgpt"}, "objective": [{"name": "masked"}]}, "it learns causal"),
    ({"data": molecules(targets=["gap"]), "model": {"family": "matgpt"}}, "data.targets is given, but no objective learns it"),
    ({"data": molecules(), "objective": [{"name": "permute"}]}, "name is 'permute'; choose one of masked"),
    ({"data": molecules(), "objective": [{"weight": 1.0}]}, "name is None"),
    ({"data": molecules(), "objective": [{"name": "masked", "weight": 0.0}]}, "it must be positive"),
    ({"data": molecules(), "objective": [{"name": "masked"}, {"name": "masked"}]}, "is given 2 times"),
    ({"data": molecules(), "objective": [{"name": "property"}]}, "the objective 'property' needs data.targets"),
    ({"data": molecules(targets=["gap"]), "objective": [{"name": "masked"}]}, "no objective learns it; add 'property'"),
    ({"data": molecules(targets=["gap"]), "masking": {"rows": 1.0}}, "leaves no row whole for the objective 'property'"),
    ({"data": molecules(), "masking": {"scheme": "element_group"}}, "needs formulas; molecules take uniform"),
    ({"data": {"tokens": "x", "kind": "smiles"}, "masking": {"scheme": "ring"}}, "a token file has only tokens"),
    ({"data": molecules(), "objective": [{"name": "contrastive"}]}, "the view 'dropout' needs model.dropout"),
    ({"data": molecules(), "objective": [{"name": "contrastive", "view": "enumeration"}]}, "needs data.enumerations"),
    ({"data": molecules(), "objective": [{"name": "contrastive", "view": "jitter"}]}, "needs compositions"),
    ({"data": {"table": "t"}, "objective": [{"name": "permutation"}]}, "needs strings, or compositions in data.scheme 'count'"),
    ({"data": molecules(targets=["gap"]), "objective": [{"name": "permutation"}, {"name": "property"}]}, "no head for the objective 'property'"),
    ({"data": molecules(), "objective": [{"name": "permutation", "one_in": 0.5}]}, "one_in is 0.5; it must be at least 1"),
    ({"data": molecules(), "objective": [{"name": "span", "rows": 0.0}]}, "rows is 0.0; it is a share above 0, at most 1"),
    ({"data": molecules(), "train": {"tokens_per_batch": 0}}, "train.tokens_per_batch is 0"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_contradictions_are_refused_before_anything_is_read(values, message):
    with pytest.raises(MatfmError) as caught:
        read(**values)
    assert message in str(caught.value)


def test_every_term_says_who_learns_it():
    assert all(term.families for term in TERMS.values())
    assert set(TERMS) >= {
        "masked",
        "property",
        "descriptors",
        "fingerprint",
        "contrastive",
        "causal",
        "span",
        "denoising",
        "translation",
    }


def test_the_documents_name_every_key_and_objective():
    text = (Path(matfm.__file__).parents[1] / "docs" / "training.md").read_text()
    own = {field.name for field in fields(TrainConfig)} - {field.name for field in fields(LoopOptions)}
    keys = [f"data.{field.name}" for field in fields(CorpusConfig)] + [
        f"model.{field.name}" for field in fields(ModelConfig)
    ]
    for key in (*keys, *(f"train.{name}" for name in own)):
        assert f"`{key}`" in text, key
    masking = next(line for line in text.splitlines() if line.startswith("| `[masking]`"))
    assert all(f"`{field.name}`" in masking for field in fields(MaskingConfig))
    common = {field.name for field in fields(Objective)}
    for name, term in TERMS.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert ", ".join(term.families) in line
        assert all(f"`{field.name}`" in line for field in fields(term.config) if field.name not in common)


@pytest.fixture
def tables(tmp_path, small_table):
    """What each example reads instead of its own data."""
    path = tmp_path / "molecules.csv"
    path.write_text("\n".join(["smiles", *SMILES]) + "\n")
    tokens = tmp_path / "corpus.tokens"
    corpus.encode(corpus.EncodeConfig(str(path), "smiles", str(tokens), "smiles"))
    formulas = (f"data.table={small_table}", "data.recipe=", "data.held_out=0.3")
    strings = (f"data.table={path}", "data.held_out=0.1")
    materials = tmp_path / "materials.csv"
    materials.write_text(small_table.read_text().replace("formula,gap,metal", "formula,band_gap,metal"))
    conditional = '[{name="causal", condition=["gap"], bins=3}]'
    described = f'data.more=[{{table="{materials}", targets=["band_gap"], held_out=0.3}}]'
    return {
        "composition_matbert": (*formulas, 'data.targets=["gap"]'),
        "composition_matgpt": formulas,
        "conditional_composition_matgpt": (*formulas, 'data.targets=["gap"]', f"objective={conditional}"),
        "smiles_matbert": (*strings, 'data.descriptors=["MolWt", "TPSA"]', "data.enumerations=1"),
        "selfies_matgpt": strings,
        "smiles_matt5": (f"data.tokens={tokens}", "data.held_out=0.1"),
        "translation_molecules": strings,
        "translation_compositions": (
            f"data.table={materials}",
            "data.recipe=",
            "data.held_out=0.3",
            'data.targets=["band_gap"]',
        ),
        "translation_joint": (*strings, "data.recipe=", described),
    }


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in CONFIGS.glob("[!l]*.toml"))
)  # the large ones: test_example_configs
def test_the_examples_run(name, tables, tmp_path):
    values = apply_overrides(load_toml(str(CONFIGS / f"{name}.toml")), [*QUICK, *tables[name]])
    summary = run(from_mapping(PretrainConfig, values, name), tmp_path / "run")
    assert (summary["steps"], summary["name"]) == (2, name.replace("_", "-"))
    assert summary["tokens_per_s"] > 0
    assert summary["rows_in"] == summary["rows_used"] + summary["rows_rejected"]
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["model_type"] == summary["family"]
    assert f"# {summary['name']}" in (tmp_path / "run" / "card.md").read_text()
