"""One function over the chunks of a table, on all cores, in order and in bounded memory."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeVar

from matfm.errors import MatfmError, RunError

if TYPE_CHECKING:  # the workers start faster without it
    from matfm.tasks.tables import Chunk

Result = TypeVar("Result")
Rows = TypeVar("Rows", bound="Chunk")

_WAITING = 3
"""Chunks per process that are worked on or wait for their turn."""


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[list[str]], Result], chunks: Iterator[Rows], column: str, workers: int
) -> Iterator[tuple[Rows, Result]]:
    """Every chunk with what `function` makes of its column. A single chunk stays in this process.

    Args:
        function: picklable, from cells to a picklable result.
        chunks: of a table.
        column: that the function gets.
        workers: processes.

    Raises:
        RunError: a process was ended from outside.
        MatfmError: as the function raised it, with the row of its cell; other errors get the row as a note.
    """
    first = list(itertools.islice(chunks, 2))
    if workers == 1 or len(first) < 2:
        for chunk in itertools.chain(first, chunks):
            yield chunk, _result(chunk, _outcome(function, chunk.columns[column]))
        return
    waiting: deque[tuple[Rows, Future[Any]]] = deque()
    with _Pool(function, workers) as pool:
        for chunk in itertools.chain(first, chunks):
            waiting.append((chunk, pool.submit(chunk.columns[column])))
            if len(waiting) > _WAITING * workers:
                done, future = waiting.popleft()
                yield done, _result(done, future.result())
        while waiting:
            done, future = waiting.popleft()
            yield done, _result(done, future.result())


class _Pool:
    """Worker processes, each with a pipe of its own and one thread at a time that talks to it.

    It cannot hang on a process that is gone. Of each pipe this process holds one end and the worker the other, nobody
    else; so when the worker ends, at whatever moment, the system ends every `send` and `recv` of this process on that
    pipe with an error. No thread waits for anything but its own worker, or for another thread to be done with one.
    """

    def __init__(self, function: Callable[[list[str]], Any], workers: int) -> None:
        # Spawned processes share nothing with this one: torch's and RDKit's threads do not survive a fork.
        self.context = multiprocessing.get_context("spawn")
        self.function = function
        self.workers = workers
        self.processes: list[multiprocessing.process.BaseProcess] = []
        self.idle: SimpleQueue[Connection] = SimpleQueue()
        self.threads = ThreadPoolExecutor(workers)

    def submit(self, cells: list[str]) -> Future[Any]:
        """Outcome of the function, to come. Starts a further process while there are fewer than `workers`."""
        if len(self.processes) < self.workers:
            self._start()
        return self.threads.submit(self._ask, cells)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:  # workers own nothing that a kill could damage
            process.kill()
        self.threads.shutdown(wait=True, cancel_futures=True)
        for process in self.processes:
            process.join()

    def _start(self) -> None:
        ours, theirs = self.context.Pipe()
        # The function follows by the pipe: `start` must not block, which it could on arguments beyond a pipe's buffer.
        process = self.context.Process(target=_serve, args=(theirs,), daemon=True)
        with _interrupts_held():
            process.start()
            self.processes.append(process)
        theirs.close()
        self.idle.put(ours)

    def _ask(self, cells: list[str]) -> Any:
        worker = self.idle.get()
        try:
            worker.send((self.function, cells))
            return worker.recv()
        except (EOFError, OSError) as error:
            raise RunError("a worker process was ended (out of memory?); run again, with fewer --workers") from error
        finally:
            self.idle.put(worker)  # an ended one too: its next turn fails at once, and nobody waits for it


class _Failure:
    """An error of the function, and the first row of the chunk at which it comes, if it comes at one alone."""

    def __init__(self, error: Exception, row: int | None) -> None:
        self.error = error
        self.row = row


def _outcome(function: Callable[[list[str]], Any], cells: list[str]) -> Any:
    try:
        return function(cells)
    except Exception as error:  # noqa: BLE001  (raised again beside the table, by `_result`)
        return _Failure(error, next((row for row, cell in enumerate(cells) if _fails(function, cell)), None))


def _fails(function: Callable[[list[str]], Any], cell: str) -> bool:
    try:
        function([cell])
    except Exception:  # noqa: BLE001
        return True
    return False


def _result(chunk: Chunk, outcome: Any) -> Any:
    if not isinstance(outcome, _Failure):
        return outcome
    first, last = chunk.first_row, chunk.first_row + chunk.rows - 1
    place = f"rows {first} to {last}" if outcome.row is None else f"row {first + outcome.row}"
    if isinstance(outcome.error, MatfmError):
        raise type(outcome.error)(f"{place}: {outcome.error}") from outcome.error
    outcome.error.add_note(f"at {place} of the table")
    raise outcome.error


def _serve(parent: Connection) -> None:
    """In a worker: answer until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    while True:
        try:
            function, cells = parent.recv()
            parent.send(_outcome(function, cells))
        except (EOFError, OSError):
            return


def _end_with_the_parent() -> None:
    """End in the middle of a chunk when the parent is gone, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started inside never gets Ctrl-C, not even before it could ignore it; this one gets it afterwards."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # would else be started inside, and lifts the hold
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
