"""Two gloo processes equal one process: losses, weights, checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes

from matfm.core.checkpoint import newest_checkpoint
from matfm.core.config import from_mapping, load_toml
from matfm.core.distributed import Ranks, sharding, share_of_step
from matfm.core.loop_config import LoopConfig
from matfm.core.process import refuse_several
from matfm.core.run_log import read_log
from matfm.errors import MatfmError

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
ROOT = Path(__file__).resolve().parents[2]


OPTIONS = {"average": "ema", "clip": "adaptive", "activation_checkpointing": True, "precision": "bfloat16"}
JOBS = {
    "ddp": {"shard": "ddp"},
    "fsdp": {"shard": "fsdp"},
    "stopped": {"shard": "fsdp", "stop_after": 25},
    "continued": {"shard": "fsdp", "resume": True},
    "options": {"shard": "fsdp", **OPTIONS},
}


def torchrun(*command):
    """Run with two processes on this machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, command)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def losses(folder):
    return [record["loss"] for record in read_log(folder / "log.jsonl") if "loss" in record]


def assert_close(left, right):
    for name, value in left.items():
        # Softmax does not see the keys' bias: its gradient is rounding, which Adam scales up.
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    model, result = two_processes.train(folder)
    return losses(folder), model.state_dict(), result


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Folder of all jobs, done by two processes; one of them goes on where a single process stopped."""
    folder = tmp_path_factory.mktemp("together")
    with pytest.raises(two_processes.StoppedError):
        two_processes.train(folder / "continued", stop_after=50)
    torchrun(two_processes.__file__, folder, json.dumps(JOBS))
    return folder


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_processes_equal_one(alone, together, shard):
    expected, weights, result = alone
    found = losses(together / shard)
    assert len(found) == 30
    assert found == pytest.approx(expected, abs=1e-6, rel=0)
    results = [json.loads((together / shard / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert results[0]["best_step"] == results[1]["best_step"] == result["best_step"]
    assert results[0]["valid"] == results[1]["valid"]
    saved = [torch.load(together / shard / f"rank-{rank}.pt") for rank in (0, 1)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in weights)
    assert_close(saved[0], weights)


def test_a_checkpoint_of_two_processes_is_continued_by_one(alone, together):
    expected, weights, _ = alone
    folder = together / "stopped"
    assert newest_checkpoint(folder / "checkpoints").step == 20
    model, _ = two_processes.train(folder, resume=True)
    assert losses(folder) == pytest.approx(expected, abs=1e-6, rel=0)
    assert_close(model.state_dict(), weights)


def test_a_checkpoint_of_one_process_is_continued_by_two(alone, together):
    expected, weights, _ = alone
    assert losses(together / "continued") == pytest.approx(expected, abs=1e-6, rel=0)
    assert_close(torch.load(together / "continued" / "rank-1.pt"), weights)


def test_options_work_on_split_weights(together, tmp_path):
    two_processes.train(tmp_path, **OPTIONS)
    assert losses(together / "options") == pytest.approx(losses(tmp_path), rel=1e-3)


def test_pretrain_runs_under_torchrun(tmp_path):
    table, config = tmp_path / "t.csv", tmp_path / "c.toml"
    rows = [f"{metal}{n}O{n + 1},{n}" for metal in ("Fe", "Zn", "Ti", "Na") for n in range(1, 30)]
    table.write_text("\n".join(["formula,band_gap", *rows]) + "\n")
    config.write_text(
        f'device = "cpu"\n[data]\ntable = "{table}"\ntargets = ["band_gap"]\nheld_out = 0.1\n[model]\nsize = "tiny"\n'
        "[train]\nepochs = 3\ntokens_per_batch = 40\naccumulate = 2\nlog_every = 1\nevaluations = 2\n"
    )
    done = torchrun("-m", "matfm", "pretrain", config, "--out", tmp_path / "two")
    lines = done.splitlines()
    assert len(lines) == 1
    two = json.loads(lines[0])
    from matfm.tasks import pretrain

    one = pretrain.run(from_mapping(pretrain.PretrainConfig, load_toml(str(config)), "c"), tmp_path / "one")
    assert (two["steps"], two["rows_used"]) == (one["steps"], one["rows_used"])
    assert two["valid"]["mae_band_gap"] == pytest.approx(one["valid"]["mae_band_gap"], rel=1e-4)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-6, rel=0)


def test_shares_do_not_overlap_and_cover_the_step():
    for world in (1, 2, 4):
        shares = [share_of_step(Ranks(rank, world), 8) for rank in range(world)]
        assert sorted(place for share in shares for place in share) == list(range(8))
        assert len({len(share) for share in shares}) == 1
    with pytest.raises(MatfmError, match="accumulate is 3; 2 processes share .* set it to a multiple of 2"):
        share_of_step(Ranks(0, 2), 3)


def test_what_several_processes_do():
    assert sharding("fsdp", Ranks()) == "none"
    assert sharding("auto", Ranks(1, 2)) == "ddp"
    assert LoopConfig(steps=1).shard == "auto"
    with pytest.raises(MatfmError, match="shard is 'none' and there are 2 processes"):
        sharding("none", Ranks(0, 2))


def test_tasks_for_one_process_say_so(monkeypatch):
    refuse_several("matfm finetune")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MatfmError, match="matfm finetune runs in one process and torchrun started 2"):
        refuse_several("matfm finetune")
