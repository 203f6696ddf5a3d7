"""Masked tokens for pretraining: which are hidden (the scheme), and what is put in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from matfm.chem.mask_choice import Candidates, PackedUnits, pick_spans, pick_tokens, pick_units
from matfm.chem.token_classes import TokenClasses, element_classes
from matfm.chem.vocabulary import SPECIAL_TOKENS
from matfm.core.layout import PackedLayout
from matfm.core.packed_index import rows_of_tokens
from matfm.errors import MatfmError

# N tokens, M masked tokens, B sequences

MASK = SPECIAL_TOKENS.index("[MASK]")
"""Id of [MASK] in every vocabulary."""

_WITHOUT_UNITS: dict[str, Callable[[Candidates, float, torch.Generator], Tensor]] = {
    "uniform": pick_tokens,
    "span": pick_spans,
}
FORMULA_SCHEMES: tuple[str, ...] = (*_WITHOUT_UNITS, "element_group")
"""What can be masked in a formula."""
MOLECULE_SCHEMES: tuple[str, ...] = (*_WITHOUT_UNITS, "functional_group", "ring", "scaffold", "branch")
"""What can be masked in a SMILES or SELFIES."""
_SCHEMES = tuple(dict.fromkeys((*FORMULA_SCHEMES, *MOLECULE_SCHEMES)))
_REPLACEMENTS = ("uniform", "class")


@dataclass(frozen=True)
class MaskingConfig:
    """Masked-token pretraining (BERT's 80/10/10, Devlin et al. 2019)."""

    rows: float = 0.15
    """Share of the sequences that get a mask; the others keep every token."""
    rate: float = 0.25
    """Chance of each token (or unit of the scheme) in such a sequence; at least one is always masked."""
    mask_share: float = 0.8
    """Of the chosen tokens, how many become [MASK]."""
    random_share: float = 0.1
    """Of the chosen tokens, how many become a random token; the rest stay."""
    scheme: str = "uniform"
    """uniform or span; formulas: element_group; molecules: functional_group, ring, scaffold or branch."""
    replacement: str = "uniform"
    """Random tokens come from all tokens (uniform) or from the chemical class of the original (class)."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Element groups of one's own: name to symbols. Other elements keep their group of the periodic table."""

    def __post_init__(self) -> None:
        for name in ("rows", "rate", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise MatfmError(f"masking.{name} is {getattr(self, name)}; it is a share in [0, 1]")
        if self.mask_share + self.random_share > 1:
            raise MatfmError("masking.mask_share and masking.random_share add up to more than 1")
        for name, choices in (("scheme", _SCHEMES), ("replacement", _REPLACEMENTS)):
            if getattr(self, name) not in choices:
                raise MatfmError(f"masking.{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        try:
            _ = self.element_classes
        except MatfmError as error:
            raise MatfmError(f"masking.groups: {error}") from None

    @cached_property
    def element_classes(self) -> TokenClasses:
        """Classes of the composition vocabulary under `groups`."""
        return element_classes(self.groups)

    def check_for_formulas(self) -> None:
        """Raises MatfmError if the scheme needs molecules."""
        if self.scheme not in FORMULA_SCHEMES:
            choices = ", ".join(FORMULA_SCHEMES)
            raise MatfmError(f"masking.scheme is {self.scheme!r}, which needs molecules; formulas take {choices}")


@dataclass(frozen=True)
class MaskedTokens:
    """Corrupted ids and where the answers are."""

    ids_N: Tensor
    positions_M: Tensor
    labels_M: Tensor
    masked_row_B: Tensor
    """True for sequences with a masked token."""


def mask_elements(
    ids_N: Tensor, layout: PackedLayout, config: MaskingConfig, generator: torch.Generator
) -> MaskedTokens:
    """`mask_tokens` for formulas: classes are element groups, and so are the units of the scheme `element_group`."""
    config.check_for_formulas()
    classes, units = config.element_classes, None
    if config.scheme == "element_group":
        units = PackedUnits.from_classes(classes.of(ids_N), layout)
    return mask_tokens(ids_N, layout, classes, config, generator, units)


def mask_tokens(
    ids_N: Tensor,
    layout: PackedLayout,
    classes: TokenClasses,
    config: MaskingConfig,
    generator: torch.Generator,
    units: PackedUnits | None = None,
) -> MaskedTokens:
    """Hide tokens in a share of the sequences; special tokens are never touched.

    Every chosen sequence with an ordinary token has at least one masked token.

    Args:
        ids_N: token ids of packed sequences, on any device; the results are on that device too.
        layout: of the sequences.
        classes: of the tokenizer's vocabulary; tells special tokens from others.
        config: scheme and shares.
        generator: on the CPU; the same state gives the same masks.
        units: for a scheme of units, those of these sequences (see `PackedUnits.from_positions`).

    Raises:
        MatfmError: the scheme needs units and there are none, or the other way round.
    """
    if (units is None) != (config.scheme in _WITHOUT_UNITS):
        needs = "needs units: see PackedUnits.from_positions" if units is None else "takes no units"
        raise MatfmError(f"masking.scheme {config.scheme!r} {needs}")
    row_N = rows_of_tokens(layout)
    chosen_row_B = torch.rand(layout.sequences, generator=generator) < config.rows
    tokens = Candidates(row_N, classes.of(ids_N) >= 0, chosen_row_B)
    if units is None:
        picked_N = _WITHOUT_UNITS[config.scheme](tokens, config.rate, generator)
    else:
        picked_N = pick_units(tokens, units, config.rate, generator)
    positions_M = picked_N.nonzero()[:, 0]
    masked_row_B = torch.zeros(layout.sequences, dtype=torch.bool).index_fill(0, row_N[positions_M], True)
    device = ids_N.device
    positions_M = positions_M.to(device)
    labels_M = ids_N[positions_M]
    corrupted_N = ids_N.index_copy(0, positions_M, _corrupted(labels_M, classes, config, generator))
    return MaskedTokens(corrupted_N, positions_M, labels_M, masked_row_B.to(device))


def _corrupted(labels_M: Tensor, classes: TokenClasses, config: MaskingConfig, generator: torch.Generator) -> Tensor:
    """[MASK], a random token or the token itself, in the shares of the configuration."""
    fate_M = torch.rand(len(labels_M), generator=generator)
    if config.replacement == "class":
        random_M = classes.draw_same_class(labels_M, generator)
    else:
        random_M = classes.draw_any(len(labels_M), generator)
    fate_M, random_M = fate_M.to(labels_M.device), random_M.to(labels_M.device)
    kept_or_random_M = torch.where(fate_M < config.mask_share + config.random_share, random_M, labels_M)
    return torch.where(fate_M < config.mask_share, MASK, kept_or_random_M)
