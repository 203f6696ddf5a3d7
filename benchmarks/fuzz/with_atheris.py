"""One target under atheris: `python benchmarks/fuzz/with_atheris.py formula -max_total_time=60` (libFuzzer's options).

Inputs that end otherwise than in a value or a MatfmError are written to the current folder as `crash-…`.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["matfm"]):
    from benchmarks.fuzz.targets import TARGETS, outcome


def main() -> None:
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(target.corpus()):
            (Path(corpus) / str(number)).write_bytes(content)
        atheris.Setup([sys.argv[0], corpus, *options], lambda content: outcome(target, content, Path(folder)) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
