"""A saved MatGPT with its tokenizer, prompt and constraints: numbers of samples in, texts out."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch

from matfm.chem.composition_completions import MOST_ATOMS
from matfm.chem.composition_constraint import MOST_ELEMENTS, CompositionConstraint, CompositionRules
from matfm.chem.composition_schemes import CLS, SEP
from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.molecule_constraints import molecule_constraints
from matfm.core.bundled import resolve_weights
from matfm.core.constraints import Conjunction, Continued, Remembering, TokenConstraint
from matfm.core.property_bins import PropertyBins
from matfm.errors import MatfmError
from matfm.models.matgpt import MatGPTForCausalLM
from matfm.models.sampler import Sampler
from matfm.models.saving import load_model, saved_tokenizer
from matfm.tasks.encoding import TOKENIZERS
from matfm.tasks.generation.conditions import Conditions
from matfm.tasks.generation.config import GenerateConfig
from matfm.tasks.kinds import saved_kind

_LONGEST = {"composition": 64, "smiles": 128, "selfies": 128}


@dataclass(frozen=True)
class Draw:
    """One sample as text."""

    text: str
    """Formula, SMILES or SELFIES, the prompt included."""
    log_probability: float
    """Under the model alone, in nats; see `Sampled`."""
    ended: bool
    """Whether it ended before the limit."""
    bins: tuple[int, ...] = ()
    """Bin of each condition."""


class Generator:
    """Draws samples of one configuration.

    Raises:
        MatfmError: the model is no MatGPT or has no tokenizer for generation; the prompt cannot be read or breaks the
            constraints; options of compositions are given for molecules or the other way round; the model does not
            know a condition.
    """

    def __init__(self, config: GenerateConfig, device: torch.device) -> None:
        kind = saved_kind(config.model)
        if kind is None:
            raise MatfmError(f"{config.model} holds no tokenizer of matfm; save that of its pretraining there")
        self.kind = kind
        self.model: Any = load_model(MatGPTForCausalLM, config.model).to(device)
        self._tokenizer = _tokenizer(config.model, kind)
        self._check_vocabulary(config)
        saved = self.model.config.conditions
        self.conditions = Conditions.read(config.condition, saved, config.model, config.seed)
        self._ids = self._tokenizer.get_vocab()
        of_conditions = condition_ids(saved, self._ids, config.model)
        self._prompt = self._read_prompt(config.prompt, of_conditions)
        longest = config.max_length or _LONGEST[kind]
        constraint = self._constraint(config, longest)
        special = [*(index for index in self._tokenizer.all_special_ids if index != SEP), *of_conditions]
        prompt = self._conditional_prompt if self.conditions else self._prompt
        self._sampler = Sampler(
            self.model, prompt, longest, config.sampling(), constraint, config.seed, config.batch_size, special
        )
        self._words = {index: token for token, index in self._ids.items()}

    def draw(self, first: int, count: int) -> list[Draw]:
        """Samples `first` to `first + count - 1`."""
        return [
            Draw(self._text(s.ids), s.log_probability, s.ended, self.conditions.draw(s.index))
            for s in self._sampler(first, count)
        ]

    def _conditional_prompt(self, index: int) -> list[int]:
        """[CLS], the tokens of a sample's bins, and those of the prompt."""
        tokens = self.conditions.tokens(self.conditions.draw(index))
        return [CLS, *(self._ids[token] for token in tokens), *self._prompt[1:]]

    def _text(self, ids: tuple[int, ...]) -> str:
        whole = (*self._prompt[1:], *ids)
        if self.kind == "composition":
            return str(self._tokenizer.to_formula(whole)) if whole else ""
        return "".join(self._words[index] for index in whole)

    def _check_vocabulary(self, config: GenerateConfig) -> None:
        known, used = self.model.config.vocab_size, len(self._tokenizer)
        if known != used:
            raise MatfmError(f"the tokenizer in {config.model} has {used} tokens and its model {known}; save both")

    def _read_prompt(self, text: str, of_conditions: list[int]) -> list[int]:
        """[CLS] and the tokens of the prompt."""
        if not text:
            return [CLS]
        ids = list(self._tokenizer(text)["input_ids"])
        if self._tokenizer.unk_token_id in ids:
            raise MatfmError(f"the prompt {text!r} has tokens that {self.kind} models do not know; write it otherwise")
        if set(ids) & set(of_conditions):
            raise MatfmError(f"the prompt {text!r} holds the token of a condition; ask for it with --condition")
        return ids[:-1]

    def _constraint(self, config: GenerateConfig, longest: int) -> TokenConstraint | None:
        """The constraint after the prompt; None if nothing is asked."""
        for_compositions = ("require", "min_elements", "max_elements", "charge_neutral")
        if self.kind == "composition":
            if config.substructure:
                raise MatfmError("--substructure is for molecules, but the model writes compositions")
            asked = any(getattr(config, name) for name in (*for_compositions, "elements", "max_atoms"))
            whole = self._composition_constraint(config, longest) if asked else None
        else:
            wrong = [f"--{name.replace('_', '-')}" for name in for_compositions if getattr(config, name)]
            wrong += [f"--only {name}" for name in ("neutral", "balanced") if name in config.only]
            if wrong:
                raise MatfmError(f"{wrong[0]} is for compositions, but the model writes {self.kind}")
            parts = molecule_constraints(
                self.kind, self._tokenizer.get_vocab(), SEP, config.elements or None, config.max_atoms or None
            )
            whole = Conjunction(parts) if parts else None
        return None if whole is None else Remembering(self._after_prompt(whole, config.prompt))

    def _composition_constraint(self, config: GenerateConfig, longest: int) -> TokenConstraint:
        if self._tokenizer.scheme_name != "count":
            raise MatfmError(
                f"{config.model} writes compositions in the scheme {self._tokenizer.scheme_name!r}; constraints need a "
                "model of the scheme 'count'"
            )
        rules = CompositionRules(
            elements=config.elements or None,
            required=config.require,
            fewest_elements=config.min_elements or 1,
            most_elements=config.max_elements or MOST_ELEMENTS,
            most_atoms=config.max_atoms or MOST_ATOMS,
            charge_neutral=config.charge_neutral,
            oxidation_states=config.oxidation_states,
            alloys=config.alloys,
        )
        # Two tokens an element, and the end.
        room = (len(self._prompt) - 1) // 2 + (longest - 1) // 2
        rules = replace(rules, most_elements=min(rules.most_elements, room))
        return CompositionConstraint(rules, self._tokenizer.get_vocab(), self._tokenizer.order, SEP)

    def _after_prompt(self, constraint: TokenConstraint, prompt: str) -> TokenConstraint:
        state: Hashable = constraint.start()
        for token in self._prompt[1:]:
            if not constraint.allowed(state)[token]:
                raise MatfmError(f"the prompt {prompt!r} breaks the constraints, or nothing that keeps them follows it")
            state = constraint.advance(state, token)
        return Continued(constraint, state)


def condition_ids(saved: list[dict[str, Any]] | None, ids: dict[str, int], model: str) -> list[int]:
    """Of all bins of a model.

    Raises:
        MatfmError: the tokenizer lacks one.
    """
    tokens = [token for values in saved or () for token in PropertyBins.saved(values, model).tokens]
    if missing := [token for token in tokens if token not in ids]:
        raise MatfmError(f"the tokenizer in {model} has no token {missing[0]}; save that of its pretraining there")
    return [ids[token] for token in tokens]


def _tokenizer(name: str, kind: str) -> Any:
    """The saved tokenizer of a generator."""
    loaded = saved_tokenizer(CompositionTokenizer if kind == "composition" else TOKENIZERS[kind], resolve_weights(name))
    if kind == "composition" and loaded.scheme_name == "fraction":
        raise MatfmError(f"{name} reads compositions in the scheme 'fraction', which has amounts that no token writes")
    return loaded
