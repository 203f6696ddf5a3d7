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


def test_the_same_rows_as_the_local_engine_bit_for_bit(two_workers, tmp_path, monkeypatch):
    import torch

    torch.manual_seed(0)
    save_model(MatBERTModel(MatBERTConfig.of_size("tiny")), tmp_path / "backbone", {})
    monkeypatch.setattr("matfm.tasks.screening.library.CHUNK_ROWS", 40)
    cells = np.random.default_rng(0).permutation(
        [f"{a}{n}{b}{m}" for a in ("Li", "Mg", "Fe") for b in ("O", "S") for n in range(1, 9) for m in range(1, 8)]
    )
    (tmp_path / "l.csv").write_text("f\n" + "\n".join([*cells, "bad!"]) + "\n")
    (tmp_path / "s.csv").write_text("f,gap\nLi2O,5.5\nMgO,7.8\nFeS,0.1\n")
    rows = {}
    for engine in ("local", "ray"):
        config = ScreenConfig(
            str(tmp_path / "l.csv"), str(tmp_path / "s.csv"), "f", "gap", str(tmp_path / f"{engine}.csv"), top=100,
            backbone=str(tmp_path / "backbone"), engine=engine, workers=1, device="cpu",
        )  # fmt: skip
        rows[engine] = screen.run(config)["rows_in"]
    assert rows == {"local": 337, "ray": 337}
    assert sha256_of(tmp_path / "ray.csv") == sha256_of(tmp_path / "local.csv")
    assert sha256_of(tmp_path / "ray.rejects.csv") == sha256_of(tmp_path / "local.rejects.csv")


def test_an_error_of_a_worker_is_raised_here(two_workers):
    with pytest.raises(TypeError):
        list(map_with_ray(len, iter([Chunk({"x": [None]}, 0), Chunk({"x": 3}, 1)]), "x"))


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MatfmError, match=r"pip install 'matfm\[ray\]'"):
        check_ray()
