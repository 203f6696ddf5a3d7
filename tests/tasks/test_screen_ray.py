"""The engine ray: real workers, one of which is killed in the middle."""

import os
import signal
import sys
import time

import numpy as np
import psutil
import pytest

from matfm.core.files import sha256_of
from matfm.errors import MatfmError
from matfm.models.fewshot_encoder import FewShotConfig, FewShotEncoder, save_fewshot
from matfm.models.matbert import MatBERTModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import save_model
from matfm.tasks import screen
from matfm.tasks.screen import ScreenConfig
from matfm.tasks.screening.ray_engine import check_ray, map_with_ray
from matfm.tasks.tables import Chunk

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def two_workers():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import tests
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


class SlowLengths:
    """Lengths of cells; says which process computed them, and takes its time."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __call__(self, cells):
        open(os.path.join(self.folder, str(os.getpid())), "a").close()
        time.sleep(0.1)
        return [len(cell) for cell in cells]


def kill_one(folder):
    """SIGKILL the first worker that has computed something and lives."""
    for name in sorted(os.listdir(folder)):
        if psutil.pid_exists(int(name)):
            os.kill(int(name), signal.SIGKILL)
            return int(name)
    return None


def test_a_killed_worker_loses_no_rows(two_workers, tmp_path):
    chunks = [Chunk({"x": ["a" * (7 * n + k) for k in range(7)]}, 7 * n) for n in range(30)]
    killed, seen = None, []
    for chunk, lengths in map_with_ray(SlowLengths(tmp_path), iter(chunks), "x"):
        seen.append((chunk.first_row, lengths))
        if len(seen) == 5:
            killed = kill_one(tmp_path)
    assert killed is not None
    assert seen == [(7 * n, [7 * n + k for k in range(7)]) for n in range(30)]
    assert len(os.listdir(tmp_path)) > 2, "nobody took the killed worker's place"


@pytest.mark.parametrize("trained", [False, True])
def test_the_same_rows_as_the_local_engine_bit_for_bit(two_workers, tmp_path, monkeypatch, trained):
    import torch

    torch.manual_seed(0)
    encoder, scorer = MatBERTModel(MatBERTConfig.of_size("tiny")), "kernel"
    if trained:  # as `matfm fewshot` leaves it
        scorer = "prototypes"
        save_fewshot(FewShotEncoder(encoder, FewShotConfig(width=8)).eval(), tmp_path / "backbone", {})
    else:
        save_model(encoder, tmp_path / "backbone", {})
    monkeypatch.setattr("matfm.tasks.screening.library.CHUNK_ROWS", 40)
    cells = np.random.default_rng(0).permutation(
        [f"{a}{n}{b}{m}" for a in ("Li", "Mg", "Fe") for b in ("O", "S") for n in range(1, 9) for m in range(1, 8)]
    )
    (tmp_path / "l.csv").write_text("f\n" + "\n".join([*cells, "bad!"]) + "\n")
    (tmp_path / "s.csv").write_text("f,gap\nLi2O,1\nMgO,1\nFeS,0\n")
    rows = {}
    for engine in ("local", "ray"):
        config = ScreenConfig(
            str(tmp_path / "l.csv"), str(tmp_path / "s.csv"), "f", "gap", str(tmp_path / f"{engine}.csv"), top=100,
            backbone=str(tmp_path / "backbone"), engine=engine, scorer=scorer, workers=1, device="cpu",
        )  # fmt: skip
        rows[engine] = screen.run(config)["rows_in"]
    assert rows == {"local": 337, "ray": 337}
    for ending in ("csv", "rejects.csv", "support.json"):
        assert sha256_of(tmp_path / f"ray.{ending}") == sha256_of(tmp_path / f"local.{ending}"), ending


def test_an_error_of_a_worker_is_raised_here(two_workers):
    with pytest.raises(TypeError):
        list(map_with_ray(len, iter([Chunk({"x": [None]}, 0), Chunk({"x": 3}, 1)]), "x"))


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MatfmError, match=r"pip install 'matfm\[ray\]'"):
        check_ray()
