"""Chemical classes of a vocabulary's tokens: what a random replacement may be drawn from."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from matfm.chem.composition_schemes import VOCABULARY
from matfm.chem.element_groups import groups_with
from matfm.chem.vocabulary import SPECIAL_TOKENS

# V vocabulary, N tokens, M masked tokens, K classes

_SMILES = (
    ("aromatic_bracket_atom", r"\[[0-9]*[a-z].*\]"),
    ("bracket_atom", r"\[.+\]"),
    ("aromatic_atom", r"[bcnops]"),
    ("aliphatic_atom", r"Br|Cl|[BCNOPSFI*]"),
    ("bond", r"->|<-|[-=#$:~/\\]"),
    ("branch", r"[()]"),
    ("ring_number", r"%\([0-9]+\)|%?[0-9]+"),
    ("dot", r"\."),
    ("other", r".+"),
)
_SELFIES = (
    ("other", r"\[(?:nop|epsilon)\]"),
    ("branch", r"\[[=#]?Branch[1-3]\]"),
    ("ring", r"\[(?:[=#]|[-/\\]{2})?Ring[1-3]\]"),
    ("triply_bonded_atom", r"\[#.+\]"),
    ("doubly_bonded_atom", r"\[=.+\]"),
    ("singly_bonded_atom", r"\[.+\]"),
    ("dot", r"\."),
    ("other", r".+"),
)


@dataclass(frozen=True)
class TokenClasses:
    """The class of every token of a vocabulary. Built once per tokenizer, kept on the CPU."""

    names: tuple[str, ...]
    class_of_V: Tensor
    """Index in `names`; -1 for special tokens (and ids that no token has), which are never masked nor drawn."""

    @classmethod
    def from_names(cls, name_of_V: Sequence[str | None]) -> TokenClasses:
        """From each token's class name, None for special tokens."""
        names = tuple(dict.fromkeys(name for name in name_of_V if name is not None))
        return cls(names, torch.tensor([-1 if name is None else names.index(name) for name in name_of_V]))

    def of(self, ids_N: Tensor) -> Tensor:
        """Classes of tokens, on the CPU."""
        return self.class_of_V[ids_N.cpu()]

    def draw_any(self, count: int, generator: torch.Generator) -> Tensor:
        """Ids drawn uniformly from all tokens that are not special, shape (count,)."""
        ordinary = (self.class_of_V >= 0).nonzero()[:, 0]
        return ordinary[torch.randint(len(ordinary), (count,), generator=generator)]

    def draw_same_class(self, ids_M: Tensor, generator: torch.Generator) -> Tensor:
        """For each (ordinary) token one drawn uniformly from its class, itself included."""
        by_class, start_K, size_K = self._members
        class_M = self.of(ids_M)
        # In float64 the product stays below the size, and every member has the same chance to 2^-53.
        share_M = torch.rand(len(ids_M), generator=generator, dtype=torch.float64)
        return by_class[start_K[class_M] + (share_M * size_K[class_M]).long()]

    @cached_property
    def _members(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ids sorted by class, and each class's first place and size in that list."""
        order = torch.argsort(self.class_of_V, stable=True)
        by_class = order[self.class_of_V[order] >= 0]
        size_K = torch.bincount(self.class_of_V[by_class], minlength=len(self.names))
        return by_class, size_K.cumsum(0) - size_K, size_K


def element_classes(groups: Mapping[str, Sequence[str]]) -> TokenClasses:
    """Classes of the composition vocabulary: the element groups, the user's before the table's (see `groups_with`)."""
    group_of = {symbol: name for name, symbols in groups_with(groups).items() for symbol in symbols}
    return _classes(VOCABULARY, SPECIAL_TOKENS, group_of.__getitem__)


def smiles_classes(vocabulary: Mapping[str, int], special: Collection[str] = SPECIAL_TOKENS) -> TokenClasses:
    """Classes of SMILES tokens: the four kinds of atoms, bonds, branches, ring numbers, dot.

    Args:
        vocabulary: token to id, as from `SmilesTokenizer().get_vocab()`.
        special: tokens never masked nor drawn (`all_special_tokens` where a tokenizer was given more).
    """
    return _classes(vocabulary, special, lambda token: _first_match(_SMILES, token))


def selfies_classes(vocabulary: Mapping[str, int], special: Collection[str] = SPECIAL_TOKENS) -> TokenClasses:
    """Classes of SELFIES symbols: atoms by the order of their bond to the atom before, branches, rings, dot.

    A symbol that states the size of a branch or ring has the class of its form: ids do not tell the use.
    """
    return _classes(vocabulary, special, lambda symbol: _first_match(_SELFIES, symbol))


def _first_match(patterns: Sequence[tuple[str, str]], token: str) -> str:
    return next(name for name, pattern in patterns if re.fullmatch(pattern, token, re.DOTALL))


def _classes(vocabulary: Mapping[str, int], special: Collection[str], name_of: Callable[[str], str]) -> TokenClasses:
    names: list[str | None] = [None] * (max(vocabulary.values()) + 1)
    for token, index in vocabulary.items():
        names[index] = None if token in special else name_of(token)
    return TokenClasses.from_names(names)
