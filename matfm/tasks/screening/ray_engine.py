"""The engine `ray` of `matfm screen`: chunks on the cores of many machines, in order; a lost worker loses no rows."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from matfm.errors import MatfmError, RunError
from matfm.tasks.tables import Chunk

Result = TypeVar("Result")

RETRIES = 5
"""How often a chunk is computed again because its worker was lost."""
_WAITING = 3
"""Chunks per core that are worked on or wait for their turn."""


def check_ray() -> None:
    """Raise MatfmError where Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MatfmError("--engine ray needs Ray; install it with pip install 'matfm[ray]'") from error


def map_with_ray(
    function: Callable[[list[str]], Result], chunks: Iterator[Chunk], column: str, gpus: float = 0
) -> Iterator[tuple[Chunk, Result]]:
    """Every chunk, in order, with what `function` makes of its column on Ray's workers.

    A Ray that runs already in this process is used, else the cluster at `RAY_ADDRESS`, else one is started on this
    machine and ended afterwards.

    Args:
        function: picklable, from cells to a picklable result. It goes to every worker once.
        chunks: of a table.
        column: that the function gets.
        gpus: of each worker.

    Raises:
        RunError: the worker of a chunk was lost again and again.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, **local)
    try:
        shared = ray.put(function)
        remote = ray.remote(_apply).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
        room = _WAITING * max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)))
        waiting: deque[tuple[Chunk, Any]] = deque()
        for chunk in chunks:
            waiting.append((chunk, remote.remote(shared, chunk.columns[column])))
            if len(waiting) > room:
                done, result = waiting.popleft()
                yield done, ray.get(result)
        while waiting:
            done, result = waiting.popleft()
            yield done, ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"Ray could not finish ({reason}); run again with --resume") from error
    finally:
        if ours:
            ray.shutdown()


def _apply(function: Callable[[list[str]], Result], cells: list[str]) -> Result:
    return function(cells)
