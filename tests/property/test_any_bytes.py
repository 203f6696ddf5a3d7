"""100,000 random strings into every parser: a value or a MatfmError, never another exception, never a long wait."""

import functools
import gc
import random
import time

import pytest

from matfm import MatfmError, parse_formula, parse_smiles, selfies_to_smiles, smiles_to_selfies
from matfm.chem.vocabulary import load_vocabulary

STRINGS = 100_000
LONGEST = 0.05
"""Seconds of this thread's processor time for one string."""
FORMULA_CHARACTERS = "FeOHCaNx2.5()[]{}+-·*₂³ ,:;%wtbal"
SMILES_CHARACTERS = "CNOc1%()[]=#+-@H/\\.*:<>2"


@functools.cache
def vocabulary(kind):
    return load_vocabulary(kind)


def random_string(generator):
    """Raw bytes half of the time, else characters or tokens of one of the notations."""
    kind = generator.random()
    if kind < 0.4:
        return generator.randbytes(generator.randrange(80)).decode("latin-1")
    if kind < 0.5:
        return generator.randbytes(generator.randrange(80)).decode("utf-8", "surrogateescape")
    if kind < 0.65:
        return "".join(generator.choices(FORMULA_CHARACTERS, k=generator.randrange(60)))
    if kind < 0.75:
        return "".join(generator.choices(SMILES_CHARACTERS, k=generator.randrange(80)))
    if kind < 0.85:
        return "".join(generator.choices(vocabulary("smiles"), k=generator.randrange(40)))
    return "".join(generator.choices(vocabulary("selfies"), k=generator.randrange(60)))


def failure(parse, text):
    """The MatfmError, or None; any other exception fails the test."""
    try:
        parse(text)
    except MatfmError as error:
        return error
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")  # readings to check are allowed
@pytest.mark.parametrize("parse", [parse_formula, parse_smiles, smiles_to_selfies, selfies_to_smiles])
def test_a_value_or_a_matfm_error_at_once(parse):
    for example in ("C", "[C]"):  # pays for imports
        failure(parse, example)
    generator = random.Random(2026)
    slowest, slowest_text, values = 0.0, "", 0
    gc.collect()
    gc.freeze()  # the collector's walk over other tests' objects is no property of a parser
    try:
        for _ in range(STRINGS):
            text = random_string(generator)
            started = time.thread_time()
            error = failure(parse, text)
            seconds = time.thread_time() - started
            values += error is None
            if error is not None:
                assert error.reason, text
                assert error.position is None or 0 <= error.position <= len(error.text), text
            if seconds > slowest:
                slowest, slowest_text = seconds, text
    finally:
        gc.unfreeze()
    assert slowest < LONGEST, f"{slowest * 1e3:.0f} ms for {slowest_text!r}"
    assert values > STRINGS / 1000, "the strings must reach beyond the first check"
