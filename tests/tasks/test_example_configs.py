"""The configurations that come with the package: all are valid, and those for GPUs train, shrunk, for one step."""

from pathlib import Path

import pytest

import matfm
from matfm.core.config import apply_overrides, from_mapping, load_toml
from matfm.tasks import corpus
from matfm.tasks.pretrain import PretrainConfig, run

FOLDER = Path(matfm.__file__).parent / "models" / "configs"
CONFIGS = sorted(FOLDER.glob("*.toml"))
LARGE = [path for path in CONFIGS if path.stem.startswith("large_")]
SHRUNK = [
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
]
ONE_STEP = ["device=cpu", "train.steps=1", "train.tokens_per_batch=300", "train.evaluations=1", "data.held_out=0.2"]
SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()[:60]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    from_mapping(PretrainConfig, load_toml(str(path)), path.name)


def test_there_is_a_large_one_of_every_family():
    families = {load_toml(str(path))["model"].get("family", "matbert") for path in LARGE}
    assert families == {"matbert", "matgpt", "matt5"}
    assert all(load_toml(str(path))["model"]["size"] == "large" for path in LARGE)


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_a_large_one_trains_a_step_on_a_shrunken_copy(path, tmp_path):
    """Everything as it is but the size, the device, the length, and compilation, which needs a compiler."""
    values = load_toml(str(path))
    settings = [*SHRUNK, *ONE_STEP]
    if values["train"].get("compile"):
        settings.append("train.compile=false")
    if "tokens" in values["data"]:
        table = tmp_path / "molecules.csv"
        table.write_text("smiles\n" + "\n".join(SMILES) + "\n")
        corpus.encode(corpus.EncodeConfig(str(table), "smiles", str(tmp_path / "tokens"), "smiles"))
        settings.append(f"data.tokens={tmp_path / 'tokens'}")
    else:
        table = tmp_path / "formulas.csv"
        rows = [f"{metal}{count}O,{','.join(['1.5'] * 11)}" for metal in ("Fe", "Al", "Mg") for count in range(1, 15)]
        table.write_text("\n".join([",".join(["formula", *values["data"]["targets"]]), *rows]) + "\n")
        values["data"]["recipe"] = ""
        settings.append(f"data.table={table}")
    summary = run(from_mapping(PretrainConfig, apply_overrides(values, settings), path.name), tmp_path / "run")
    assert summary["steps"] == 1
    assert (tmp_path / "run" / "model.safetensors").is_file()
