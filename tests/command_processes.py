"""Commands in processes of their own. A server forks them that has imported everything, so each starts at once."""

import io
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import weakref
from pathlib import Path

DEADLINE = 180.0
IMPORTED = ["matfm.cli", *(f"matfm.tasks.{name}" for name in ("pretrain", "finetune", "predict", "screen"))]


def server():
    """Where processes come from; what a test changed in its own is not seen there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _run(arguments, before, size, outputs):
    for number, output in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb")) for number in (1, 2))
    if size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    exec(before, {})
    from matfm.cli import main

    sys.argv = ["matfm", *arguments]
    main()


class Command:
    """`matfm` with these arguments, after some lines of Python, with files of at most `size` bytes."""

    def __init__(self, arguments, before="", size=None):
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder)
        self.outputs = [str(folder / name) for name in ("stdout", "stderr")]
        self.process = server().Process(target=_run, args=([*map(str, arguments)], before, size, self.outputs))
        self.process.start()

    def _watch(self, condition):
        """Return as soon as the condition holds, or the process has ended, or has had too long."""
        deadline = time.monotonic() + DEADLINE
        while not condition() and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)

    def wait_until(self, condition):
        self._watch(condition)
        assert self.process.is_alive(), self.written()

    def send(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        """Exit code, standard output and standard error."""
        self.process.join(DEADLINE)
        assert self.process.exitcode is not None, "the command did not end"
        return self.process.exitcode, *self.written()

    def written(self):
        found = []
        for output in self.outputs:
            with open(output, "rb") as file:
                found.append(file.read().decode())
        return found

    def killed_when(self, condition):
        """SIGKILL as soon as the condition holds; whether that was before the end."""
        self._watch(condition)
        self.kill()
        return self.process.exitcode == -signal.SIGKILL

    def kill(self):
        if self.process.is_alive():
            self.send(signal.SIGKILL)
        self.process.join()


def tracebacks(errors: str) -> int:
    """Tracebacks that processes wrote, but for those of workers that Python was still starting as their parent died.

    These lose the pipe that says what to import, before any of our code runs.
    """
    unborn = errors.count("from_parent") and errors.count("EOFError: Ran out of input")
    return errors.count("Traceback") - unborn
