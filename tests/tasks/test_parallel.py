"""Worker processes: in order, in bounded memory, and never a wait for one that is gone."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_processes import tracebacks
from functions_of_workers import fails_on_many, picky, shout, sleepy_lengths

from matfm.errors import MatfmError, RunError
from matfm.tasks.streaming import parallel
from matfm.tasks.streaming.parallel import map_in_order
from matfm.tasks.tables import Chunk

LARGE = 300_000
"""Characters of a cell that no pipe takes at once."""


@pytest.fixture(autouse=True)
def light_workers(monkeypatch):
    """Spawned processes import the main module, which is pytest here; this leaves it out."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


def chunks(cells_of_each):
    first_row = 0
    for cells in cells_of_each:
        yield Chunk({"text": cells}, first_row)
        first_row += len(cells)


def results(function, cells_of_each, workers=2):
    return [result for _, result in map_in_order(function, chunks(cells_of_each), "text", workers)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_whatever_is_done_first(workers):
    given = [[str(60 - 10 * i), "x" * i] for i in range(6)]
    assert results(sleepy_lengths, given, workers) == [[2, i] for i in range(6)]


def test_large_results_and_large_cells_pass():
    given = [[letter * LARGE] for letter in "abcdefgh"]
    assert results(shout, given) == [[letter * LARGE] for letter in "ABCDEFGH"]


def test_the_table_is_read_only_a_little_ahead():
    read = []

    def watched():
        for chunk in chunks([[str(i)] for i in range(40)]):
            read.append(chunk.first_row)
            yield chunk

    done = map_in_order(shout, watched(), "text", 2)
    for count in range(1, 11):
        next(done)
        assert len(read) <= count + 2 * parallel._WAITING + 1
    done.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_function_name_the_row(workers):
    with pytest.raises(MatfmError, match=r"^row 3: it is bad$"):
        results(picky, [["a", "b"], ["c", "bad"], ["d"]], workers)
    with pytest.raises(ZeroDivisionError) as caught:
        results(picky, [["a", "bug"], ["c"]], workers)
    assert caught.value.__notes__ == ["at row 1 of the table"]
    with pytest.raises(MatfmError, match=r"^rows 1 to 2: too many$"):
        results(fails_on_many, [["a"], ["b", "c"]], workers)


@pytest.mark.parametrize("payload", [10, LARGE])
def test_a_worker_that_is_killed_at_any_moment_is_an_error(monkeypatch, payload):
    given = [["3" + " " * payload] for _ in range(3000)]
    start = parallel._Pool._start
    for moment in range(10):
        started, killers = [], []

        def and_kill_later(pool, moment=moment, started=started, killers=killers):
            start(pool)
            started.append(pool.processes[-1])
            if len(started) == 1:  # from while it starts to while it works
                killers.append(threading.Timer(0.012 * moment**2, started[0].kill))
                killers[0].start()

        monkeypatch.setattr(parallel._Pool, "_start", and_kill_later)
        with pytest.raises(RunError, match="a worker process was ended .*fewer --workers"):
            results(sleepy_lengths, given)
        killers[0].join()
        assert not any(process.is_alive() for process in started)


def test_a_worker_that_is_killed_while_it_is_sent_something(monkeypatch):
    """It is stopped first, so that the pipe is full and the parent in the middle of it."""
    start = parallel._Pool._start
    given = [["0"], ["0"], *([["0" * LARGE]] * 4)]

    def and_stop(pool):
        start(pool)
        victim = pool.processes[-1]
        os.kill(victim.pid, signal.SIGSTOP)
        threading.Timer(0.3, victim.kill).start()

    monkeypatch.setattr(parallel._Pool, "_start", and_stop)
    with pytest.raises(RunError, match="a worker process was ended"):
        results(shout, given)


def test_nothing_is_left_when_the_reader_stops_early(monkeypatch):
    pools = []
    start = parallel._Pool._start
    monkeypatch.setattr(parallel._Pool, "_start", lambda pool: pools.append(pool) or start(pool))
    done = map_in_order(sleepy_lengths, chunks([["0"], *([["60000"]] * 9)]), "text", 2)
    assert next(done)[1] == [1]
    started = time.monotonic()
    done.close()
    assert time.monotonic() - started < 5
    assert len(pools[0].processes) == 2
    assert not any(process.is_alive() for process in pools[0].processes)


SCRIPT = """
import sys
from matfm.tasks.streaming.parallel import map_in_order
from matfm.tasks.tables import Chunk
from test_parallel_worker import slow
chunks = (Chunk({"text": ["x" * 100_000]}, i) for i in range(1000))
if __name__ == "__main__":
    print("ready", flush=True)
    for _ in map_in_order(slow, chunks, "text", 2):
        pass
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("wait", [0.02, 0.8])
def test_when_the_parent_goes_the_workers_go(tmp_path, how, wait):
    (tmp_path / "main.py").write_text(SCRIPT)
    (tmp_path / "test_parallel_worker.py").write_text(
        "import time\ndef slow(cells):\n    time.sleep(30)\n    return cells\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    parent.stdout.readline()
    time.sleep(wait)
    if how is signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does: to the workers as well
    else:
        parent.kill()
    _, errors = parent.communicate(timeout=20)  # ends when every process that holds the pipe of errors has ended
    assert parent.returncode != 0
    assert tracebacks(errors) <= (how is signal.SIGINT)
    deadline = time.monotonic() + 20  # a process closes its pipes a moment before it is gone
    while alive(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(parent.pid)


def alive(group):
    """Processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(folder.name)
    return found
