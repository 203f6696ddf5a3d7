"""SIGKILL at random moments of a run of 200 steps: the resumed run ends with bit-equal weights.

The moments come from a seed. By default three for each command; all twenty with
`MATFM_KILLS=20 python -m pytest tests/e2e/test_kills.py`.
"""

import os
import random
import signal
import time

import pytest
import torch
from command_processes import Command
from safetensors.torch import load_file

from matfm.core.run_log import read_log

STEPS = 200
MOMENTS = int(os.environ.get("MATFM_KILLS", "3"))
SEED = 20
METALS = ("Li", "Na", "K", "Mg", "Ca", "Fe", "Zn", "Ti", "Al", "Ga")
ANIONS = ("O", "S", "Se", "N", "F")


def finish(arguments):
    code, _, errors = Command(arguments).end()
    assert code == 0, errors


def table(folder):
    path = folder / "table.csv"
    rows = [
        f"{metal}{n}{anion}{m},{n / m:.3f}" for metal in METALS for anion in ANIONS for n in (1, 2, 3) for m in (1, 2)
    ]
    path.write_text("\n".join(["formula,gap", *rows]) + "\n")
    return path


def pretraining(folder):
    config = folder / "pretrain.toml"
    config.write_text(
        f'device = "cpu"\n[data]\ntable = "{table(folder)}"\ntargets = ["gap"]\nheld_out = 0.1\n'
        '[model]\nsize = "tiny"\ndropout = 0.1\n[optimizer]\nmethod = "muon"\nlearning_rate = 3e-3\n'
        '[train]\nepochs = 17\ntokens_per_batch = 60\ncheckpoint_every = 7\nlog_every = 1\naverage = "ema"\n'
    )
    return ["pretrain", config]


def finetuning(folder):
    return ["finetune", table(folder), "--input", "formula", "--target", "gap", "--backbone", "scratch:tiny", "--device", "cpu",
            "--epochs", "18", "--set", "fit.tokens_per_batch=60", "--set", "fit.checkpoint_every=7", "--set", "fit.log_every=1"]  # fmt: skip


@pytest.fixture(scope="module", params=[pretraining, finetuning], ids=["pretrain", "finetune"])
def whole(request, tmp_path_factory):
    """A command, and the weights of its uninterrupted run."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    arguments = request.param(folder)
    finish([*arguments, "--out", folder / "whole"])
    assert steps_of(folder / "whole") >= STEPS
    return arguments, load_file(folder / "whole" / "model.safetensors")


def steps_of(out):
    return max((record["step"] for record in read_log(out / "log.jsonl")), default=0)


def killed_at(arguments, out, step, delay):
    """SIGKILL `delay` seconds after the log has reached a step; whether that was before the end."""

    def reached():
        if steps_of(out) < step:
            return False
        time.sleep(delay)
        return True

    return Command(arguments).killed_when(reached)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_resumed_weights_are_bit_equal(whole, tmp_path, moment):
    arguments, expected = whole
    draw = random.Random(f"{SEED}-{moment}")
    # Steps before 1 are the time of reading and encoding; small delays hit forward, backward, update and saving.
    step, delay = draw.randrange(STEPS), draw.uniform(0, 0.03)
    assert killed_at([*arguments, "--out", tmp_path / "cut"], tmp_path / "cut", step, delay)
    finish([*arguments, "--out", tmp_path / "cut", "--resume"])
    found = load_file(tmp_path / "cut" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected), f"killed after step {step} + {delay} s"
    logged = [record["step"] for record in read_log(tmp_path / "cut" / "log.jsonl") if "loss" in record]
    assert logged == list(range(1, len(logged) + 1))
