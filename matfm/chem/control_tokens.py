"""Control tokens around a formula, `[OXIDE] Fe2O3 [BANDGAP]`: its chemical class before it, the task behind it.

After the control codes of CTRL (Keskar et al., arXiv:1909.05858). They are no elements and have no amounts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from matfm.chem.composition_schemes import SPECIAL_AMOUNT, VOCABULARY
from matfm.chem.elements import SYMBOLS

# N tokens of R formulas, V vocabulary, C classes

_BY_ELEMENT = {
    "[OXIDE]": "O",
    "[HALIDE]": "F Cl Br I At Ts",
    "[CHALCOGENIDE]": "S Se Te Po Lv",
    "[PNICTIDE]": "N P As Sb",
    "[CARBIDE]": "C",
    "[BORIDE]": "B",
    "[TETRELIDE]": "Si Ge",
    "[HYDRIDE]": "H",
    "[OTHER]": "He Ne Ar Kr Xe Rn Og",
}
CLASS_TOKENS: tuple[str, ...] = ("[ELEMENT]", "[ORGANIC]", *_BY_ELEMENT, "[INTERMETALLIC]")
"""In the order in which they are asked; every formula has exactly one."""
CONTROL_TOKENS = len(CLASS_TOKENS) + 1
"""Those of the classes and one of the task."""
_INTERMETALLIC = len(CLASS_TOKENS) - 1


def composition_class(elements: Sequence[str]) -> str:
    """The class token of a set of elements.

    One element is `[ELEMENT]`; C and H together are `[ORGANIC]`; else the first of the lists oxygen, halogens, other
    chalcogens, N P As Sb, C, B, Si Ge, H, noble gases of which there is an element decides, so that BiOCl is an
    oxide; what is left holds metals alone and is `[INTERMETALLIC]`.

    Args:
        elements: different symbols.
    """
    has_1V = np.zeros((1, len(VOCABULARY)), bool)
    has_1V[0, [VOCABULARY[symbol] for symbol in elements]] = True
    return CLASS_TOKENS[_classes(has_1V)[0]]


def task_token(names: Sequence[str]) -> str:
    """The token of a task by its targets: `[GAP_EXPT_EV]`."""
    return f"[{re.sub(r'[^A-Z0-9]+', '_', '_'.join(names).upper()).strip('_') or 'TASK'}]"


def control_tokens(names: Sequence[str]) -> list[str]:
    """All of a task, in the order of their ids, which follow those of the vocabulary."""
    task = task_token(names)
    return [*CLASS_TOKENS, task if task not in CLASS_TOKENS else f"[TASK_{task[1:]}"]


def with_control_tokens(
    ids_N: np.ndarray, amounts_N: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, amounts and offsets of formulas in the scheme `fraction`, the class behind `[CLS]`, the task at the end."""
    rows, lengths_R = len(offsets) - 1, np.diff(offsets)
    has_RV = np.zeros((rows, len(VOCABULARY)), bool)
    has_RV[np.repeat(np.arange(rows), lengths_R), ids_N.astype(np.int64)] = True
    first, task = len(VOCABULARY), len(VOCABULARY) + len(CLASS_TOKENS)
    places = np.stack([offsets[:-1] + 1, offsets[1:]], axis=1).ravel()
    added = np.stack([first + _classes(has_RV), np.full(rows, task)], axis=1).ravel()
    return (
        np.insert(ids_N, places, added.astype(ids_N.dtype)),
        np.insert(amounts_N, places, np.full(len(places), SPECIAL_AMOUNT, amounts_N.dtype)),
        np.concatenate([[0], np.cumsum(lengths_R + 2)]),
    )


def _classes(has_RV: np.ndarray) -> np.ndarray:
    """Position in `CLASS_TOKENS` of each formula (R,), by which tokens it has."""

    def any_of(symbols: str) -> np.ndarray:
        return np.asarray(has_RV[:, [VOCABULARY[symbol] for symbol in symbols.split()]].any(axis=1))

    elements_R = has_RV[:, [VOCABULARY[symbol] for symbol in SYMBOLS]].sum(axis=1)
    asked = [elements_R == 1, any_of("C") & any_of("H"), *(any_of(symbols) for symbols in _BY_ELEMENT.values())]
    return np.select(asked, range(len(asked)), _INTERMETALLIC)
