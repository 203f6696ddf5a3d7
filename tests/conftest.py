"""Small models and real formulas shared by the tests."""

import os

import numpy as np
import pytest
from hypothesis import settings
from small_recipes import small_recipes  # noqa: F401 (a fixture)
from tiny_runs import predict, start, trained  # noqa: F401 (fixtures)

# Several test processes share the cores: one thread each, or they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# The first example of a law also pays for imports, and shared machines stall: time is no property of a formula.
settings.register_profile("matfm", deadline=None)
settings.load_profile("matfm")

FORMULAS = (
    "Ag(AuS)2 Ag0.5Ge1Pb1.75S4 GaN Fe2O3 SiO2 BaTiO3 NaCl Ba(Zr0.1Ti0.9)O3 Cu2ZnSnS4 Li7La3Zr2O12 GaAs CdTe "
    "YBa2Cu3O6.93 Fe Cu MgB2 C60 CH3NH3PbI3 K4[Fe(CN)6] LaFe0.5Co0.5O3 ZnO TiO2 PbTe Bi2Te3 InP"
).split()
"""Formulas with one to five elements, brackets and fractions."""


@pytest.fixture
def formulas():
    return list(FORMULAS)


@pytest.fixture
def tiny_tokens():
    """The formulas as ragged tokens, with two targets of which some are missing."""
    from matfm.tasks.encoding import encode_formulas

    tokens = encode_formulas(list(FORMULAS)).tokens
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(len(FORMULAS), 2)).astype(np.float32)
    targets[::4, 1] = np.nan
    tokens.targets_RK = targets
    return tokens


@pytest.fixture
def tiny_model():
    """A randomly initialised model with two property outputs and both heads."""
    import torch

    from matfm import MatBERTConfig
    from matfm.models.matbert import MatBERTForPretraining

    torch.manual_seed(0)
    names, units = ["band_gap", "energy_per_atom"], ["eV", "eV/atom"]
    return MatBERTForPretraining(MatBERTConfig.of_size("tiny", property_names=names, property_units=units))


@pytest.fixture
def small_table(tmp_path):
    """A CSV of real formulas with a number that depends on the composition."""
    from matfm import parse_formula

    path = tmp_path / "table.csv"
    lines = ["formula,gap,metal"]
    for formula in FORMULAS * 3:
        share = sum(
            value for symbol, value in parse_formula(formula).fractions.items() if symbol in "O S N F I".split()
        )
        lines.append(f"{formula},{4 * share:.4f},{'no' if share > 0.3 else 'yes'}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
