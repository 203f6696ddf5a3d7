"""Every parser on bytes from hypothesis and on changed real inputs: a value or a MatfmError, and soon.

`python benchmarks/fuzz/run.py` tries more of the same; what it tried so far stands in docs/reliability.md.
"""

import random
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.mutate import LONGEST, mutated
from benchmarks.fuzz.run import fuzz
from benchmarks.fuzz.targets import TARGETS, outcome
from matfm import MatfmError

SLOW = ("run_config", "weights", "recipe", "pretrain_config", "row_encoders")


@pytest.fixture(autouse=True)
def _readings_to_check_are_allowed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_survives_changed_real_inputs(name, tmp_path):
    tally = fuzz(TARGETS[name], 20 if name in SLOW else 100, f"{name}-ci", tmp_path)
    assert not tally.failures
    assert tally.read > 0, "inputs must reach beyond the first check"


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in SLOW])
def test_survives_any_bytes(name, tmp_path):
    target = TARGETS[name]

    @settings(max_examples=15, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def law(content):
        outcome(target, content, tmp_path)

    law()


def test_inputs_depend_on_the_seed_alone_and_are_short():
    corpus, words = [b"GaN", b"Fe2O3" * 5_000], [b"(", b"H2O"]
    one, same, other = (
        [mutated(corpus, words, generator) for _ in range(50)] for generator in map(random.Random, (1, 1, 2))
    )
    assert one == same != other
    assert max(map(len, one)) <= LONGEST


def test_an_unexpected_exception_and_an_error_without_a_sentence_are_found(tmp_path):
    from benchmarks.fuzz.target import Target

    def broken(content, folder):
        if content == b"ab":
            raise MatfmError("ab", 9, "outside")
        raise KeyError(content)

    tally = fuzz(Target(broken, lambda: [b"ab", b"x"]), 100, "0", tmp_path)
    assert {where.split(" ")[0] for where in tally.failures} == {"KeyError", "AssertionError"}
