"""One function over the chunks of a table, on all cores, in order and in bounded memory."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from matfm.errors import RunError
from matfm.tasks.tables import Chunk

Result = TypeVar("Result")

_WAITING = 3
"""Chunks per process that are worked on or wait for their turn."""
_PATIENCE = 5.0
"""Seconds to wait for a result before the pool is asked whether all its processes live."""


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[list[str]], Result], chunks: Iterator[Chunk], column: str, workers: int
) -> Iterator[tuple[Chunk, Result]]:
    """Every chunk with what `function` makes of its column. A single chunk stays in this process.

    Args:
        function: picklable, from cells to a picklable result.
        chunks: of a table.
        column: that the function gets.
        workers: processes.

    Raises:
        RunError: a process was ended from outside.
    """
    first = list(itertools.islice(chunks, 2))
    if workers == 1 or len(first) < 2:
        yield from ((chunk, function(chunk.columns[column])) for chunk in itertools.chain(first, chunks))
        return
    # Spawned processes share nothing with this one: torch's and RDKit's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_the_parent) as pool:
        waiting: deque[tuple[Chunk, Future[Result]]] = deque()
        try:
            for chunk in itertools.chain(first, chunks):
                waiting.append((chunk, pool.submit(function, chunk.columns[column])))
                if len(waiting) > _WAITING * workers:
                    done, future = waiting.popleft()
                    yield done, _result(pool, future)
            while waiting:
                done, future = waiting.popleft()
                yield done, _result(pool, future)
        except BrokenProcessPool as error:
            raise RunError("a worker process was ended (out of memory?); run again, with fewer --workers") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(pool: ProcessPoolExecutor, future: Future[Result]) -> Result:
    while True:
        try:
            return future.result(timeout=_PATIENCE)
        except TimeoutError:
            if future.done():
                raise
            # The pool looks for ended processes among those it knew when it last woke up: this wakes it.
            pool.submit(int)


def _end_with_the_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent is gone, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
