"""Readers of what matfm itself writes, which may come back damaged or made up."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.target import JSON_WORDS, Parse, Target, given, named


def _json_file(name: str, module: str, function: str, *arguments: Any) -> Parse:
    def parse(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(content)
        return named(module, function)(folder, *arguments)

    return parse


def _split_file(content: bytes, folder: Path) -> object:
    from matfm.chem.split_file import load_split

    path = folder / "split.json"
    path.write_bytes(content)
    return load_split(path, ["a", "b", "c", "d"])


def _splits() -> list[bytes]:
    import tempfile

    from matfm.chem.split_file import save_split

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.json"
        save_split(path, ["a", "b", "c", "d"], np.array(["train", "test", "valid", "-"], object), {"name": "random"})
        return [path.read_bytes()]


def _vocabulary(content: bytes, folder: Path) -> object:
    from matfm.chem.vocabulary import load_vocabulary

    path = folder / "vocabulary.json"
    path.write_bytes(content)
    return load_vocabulary(path)


def _pickle(content: bytes, _: Path) -> object:
    from matfm.core.plain_pickle import read_plain_array_file, read_plain_pickle

    if content.startswith(b"\x93NUMPY"):
        return read_plain_array_file(content, "p.npy")
    return read_plain_pickle(content, "p.pkl")


def _pickles() -> list[bytes]:
    import pickle

    array = io.BytesIO()
    np.save(array, np.array([1.5, "x"], dtype=object), allow_pickle=True)
    values = [{"a": [1, 2.5], "b": "x"}, [np.arange(3.0), np.array([1], "i8")], {"k": np.array(["x"], object)}]
    return [*(pickle.dumps(value, protocol) for value in values for protocol in (2, 4)), array.getvalue()]


def _delta(content: bytes, folder: Path) -> object:
    """The record, beside tensors that fit the first one of the corpus."""
    from matfm.models.delta_files import read_delta
    from matfm.models.deltas import DeltaSpec

    _tensors(folder / "delta.safetensors")
    (folder / "delta.json").write_bytes(content)
    record, _ = read_delta(folder)
    return named("matfm.core.config", "from_mapping")(DeltaSpec, record["spec"], "delta.json")


def _tensors(path: Path) -> None:
    if not path.is_file():
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(2, np.float32)}, path)


def _deltas() -> list[bytes]:
    record = {
        "format": 1,
        "name": "delta",
        "spec": {"method": "lora"},
        "backbone": {"name": "matbert-small", "sha256": "0" * 64},
        "head": None,
    }
    return [json.dumps(record).encode(), json.dumps({**record, "spec": {"method": "prompt", "length": 4}}).encode()]


def _calibrations() -> list[bytes]:
    rows = {"true": [1.0, 2.0], "value": [1.1, None], "std": [0.1, 0.2], "q0.05": [0.9, 1.8], "group": ["a", "b"]}
    content = {"format": 2, "source": "valid", "targets": {"gap": rows, "metal": {"true": [0], "value": [[0.2, 0.8]]}}}
    return [json.dumps(content).encode()]


def _delta_sets() -> list[bytes]:
    backbone = {"name": "matbert-small", "sha256": "0" * 64, "kind": "composition"}
    content = {"format": 1, "backbone": backbone, "deltas": {"gap": {"members": 1}}}
    return [json.dumps(content).encode()]


def _estimators() -> list[bytes]:
    content = {"format": 1, "class": "PropertyRegressor", "parameters": {"epochs": 3}, "fitted": {"classes_": ["a"]}}
    return [json.dumps(content).encode()]


def _journal(content: bytes, folder: Path) -> object:
    from matfm.tasks.streaming.journal import Journal

    unfinished = folder / ".o.csv.unfinished"
    unfinished.mkdir(exist_ok=True)
    (unfinished / "state.json").write_bytes(content)
    return Journal.open(str(folder / "o.csv"), "predict", {"run": "x"}, resume=True)


def _journals() -> list[bytes]:
    state = {"format": 1, "begun_with": {"run": "x"}, "chunks": 1, "rows": 3, "digest": "00", "saved": {}}
    return [json.dumps(state).encode()]


def _log(content: bytes, folder: Path) -> object:
    from matfm.core.run_log import read_log

    (folder / "log.jsonl").write_bytes(content)
    return [record for record in read_log(folder / "log.jsonl") if record["step"] <= 3]


def _token_file(content: bytes, folder: Path) -> object:
    from matfm.core.token_files import open_tokens

    (folder / "meta.json").write_bytes(content)
    for name, kind, size in (("ids", "<u2", 4), ("offsets", "<i8", 3), ("rows", "<i8", 2)):
        (folder / f"{name}.bin").write_bytes(np.zeros(size, kind).tobytes())
    return open_tokens(folder)


def _run_folder(content: bytes, folder: Path) -> object:
    """`config.json` as resuming and predicting read it, beside weights that fit the one of the corpus."""
    from matfm.core.run_directory import RunDirectory
    from matfm.models.saving import load_model

    (folder / "config.json").write_bytes(content)
    if not (folder / "model.safetensors").is_file():
        (folder / "model.safetensors").write_bytes(_tiny()[1])
    RunDirectory.open(folder, {"seed": 1}, resume=True)
    return load_model(named("matfm.models.matbert", "MatBERTModel"), str(folder))


def _run_configs() -> list[bytes]:
    return [_tiny()[0]]


def _weights(content: bytes, folder: Path) -> object:
    from matfm.models.saving import load_model

    (folder / "model.safetensors").write_bytes(content)
    if not (folder / "config.json").is_file():
        (folder / "config.json").write_bytes(_tiny()[0])
    return load_model(named("matfm.models.matbert", "MatBERTModel"), str(folder))


def _weight_files() -> list[bytes]:
    return [_tiny()[1]]


@functools.cache
def _tiny() -> tuple[bytes, bytes]:
    """Configuration and weights of the smallest MatBERT."""
    import tempfile

    from matfm import MatBERTConfig
    from matfm.models.saving import save_model

    config = MatBERTConfig(
        hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, amount_frequencies=2
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(named("matfm.models.matbert", "MatBERTModel")(config), Path(folder), {"seed": 1})
        return (Path(folder) / "config.json").read_bytes(), (Path(folder) / "model.safetensors").read_bytes()


def _delta_set(content: bytes, folder: Path) -> object:
    from matfm.tasks.deltas import DeltaSet

    (folder / "deltas.json").write_bytes(content)
    return DeltaSet.open(folder).names


TARGETS: dict[str, Target] = {
    "split_file": Target(_split_file, _splits, JSON_WORDS, 4),
    "vocabulary": Target(_vocabulary, given('{"format": 1, "sources": ["x"], "tokens": ["C", "N"]}'), JSON_WORDS, 4),
    "pickle": Target(_pickle, _pickles, ("cos\nsystem\n", "cnumpy\nndarray\n", "(", "tR.", "\x93NUMPY"), 8),
    "delta": Target(_delta, _deltas, (*JSON_WORDS, "prompt", "rank"), 3),
    "delta_set": Target(_delta_set, _delta_sets, JSON_WORDS, 3),
    "calibration": Target(
        _json_file("calibration.json", "matfm.tasks.uncertainty.calibration", "load_calibration"),
        _calibrations,
        JSON_WORDS,
        3,
    ),
    "estimator": Target(
        _json_file("estimator.json", "matfm.tasks.estimator_file", "load_estimator", "PropertyRegressor"),
        _estimators,
        JSON_WORDS,
        3,
    ),
    "journal": Target(_journal, _journals, JSON_WORDS, 3),
    "run_log": Target(_log, given('{"step": 1, "loss": 0.5}\n{"step": 2, "valid": {"score": 1.0}}\n'), JSON_WORDS, 3),
    "token_file": Target(
        _token_file,
        given('{"format": 1, "sequences": 2, "tokens": 4, "amounts": false, "kind": "smiles"}'),
        JSON_WORDS,
        3,
    ),
    "run_config": Target(_run_folder, _run_configs, (*JSON_WORDS, "hidden_size", "null", "-1", "1e9"), 1),
    "weights": Target(_weights, _weight_files, ("F32", "BF16", "data_offsets", "shape", "-1", "{", "}"), 1),
}
