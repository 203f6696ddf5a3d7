"""Deltas: small trained additions to a frozen encoder, by name. Several may be on one encoder; at most one acts.

An encoder remembers its deltas in `config.deltas` and `config.active_delta`, so that a saved model is built with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from matfm.core.acceleration import repeated_blocks
from matfm.core.adapters import AdaptedLinear, Bottleneck, LowRank, checked_name
from matfm.core.attention_context import AttentionContext
from matfm.core.config import from_mapping
from matfm.core.layout import PackedLayout
from matfm.core.prompts import AdaptedStack, Prefix, Prompt
from matfm.core.transformer import PreNormBlock, TransformerStack
from matfm.errors import MatfmError

# P learned vectors, L layers, D width

METHODS = ("adapter", "lora", "prefix", "prompt")
STARTS = ("tokens", "random")
_OUTPUT_MAPS = ("out", "down")
"""The last maps of attention and feed-forward, behind which Houlsby et al. put their adapters."""
_RANDOM_STD = 0.02


@dataclass(frozen=True)
class DeltaSpec:
    """The shape of a delta: everything but its numbers. What another method needs stays 0."""

    method: str
    """adapter, lora, prefix or prompt."""
    rank: int = 0
    """Of lora's updates."""
    alpha: float = 0.0
    """lora's updates are scaled by alpha / rank."""
    maps: tuple[str, ...] = ()
    """Last names of the linear maps that lora updates; all maps of the blocks if empty."""
    bottleneck: int = 0
    """Width of adapters inside."""
    length: int = 0
    """Vectors of a prompt or prefix."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise MatfmError(f"the method of a delta is {self.method!r}; choose one of {', '.join(METHODS)}")
        name = {"lora": "rank", "adapter": "bottleneck"}.get(self.method, "length")
        if getattr(self, name) < 1:
            raise MatfmError(f"{name} of a {self.method} delta is {getattr(self, name)}; it must be at least 1")


def deltas_of(model: Any) -> dict[str, DeltaSpec]:
    """Name to shape of the deltas on a model's encoder."""
    return delta_specs(getattr(model.config, "deltas", None))


def delta_specs(known: dict[str, dict[str, Any]] | None) -> dict[str, DeltaSpec]:
    """What `config.deltas` says. Raises MatfmError for a method or a key that there is not."""
    return {name: from_mapping(DeltaSpec, values, f"delta {name!r}") for name, values in (known or {}).items()}


def add_delta(model: Any, name: str, spec: DeltaSpec, start: str = "random") -> None:
    """Put a delta on a model's encoder and let it act. Low-rank updates and adapters begin without effect.

    Args:
        model: an encoder, or a model with one.
        name: letters, digits, `_` and `-`.
        spec: the shape.
        start: what prompts and prefixes begin as: `tokens` (random tokens of the vocabulary, as the frozen encoder sees
            them in each layer; Lester et al. 2021, Li & Liang 2021) or `random` (normal numbers).

    Raises:
        MatfmError: the name is taken or cannot be used, or the encoder has nothing of the kind that is adapted.
    """
    encoder = _encoder_of(model)
    if any(name in part.added for part in _adapted(encoder)):
        raise MatfmError(f"this model has a delta {name!r} already; choose another name")
    checked_name(name)
    before = encoder.config.active_delta
    use_delta(encoder, None)
    try:
        _ADD[spec.method](encoder, name, spec, start)
    except MatfmError:
        use_delta(encoder, before)
        raise
    encoder.config.deltas = {**(encoder.config.deltas or {}), name: asdict(spec)}
    use_delta(encoder, name)


def restore_deltas(encoder: Any) -> None:
    """The deltas that an encoder's configuration names, with numbers that are still to be loaded."""
    active = encoder.config.active_delta
    for name, spec in deltas_of(encoder).items():
        add_delta(encoder, name, spec)
    use_delta(encoder, active)


def use_delta(model: Any, name: str | None) -> None:
    """Let the delta of that name act, or none. Raises MatfmError for a name that the model does not have."""
    encoder = _encoder_of(model)
    known = encoder.config.deltas or {}
    if name is not None and name not in known:
        raise MatfmError(f"this model has no delta {name!r}; it has {', '.join(known) or 'none'}")
    for part in _adapted(encoder):
        part.active = name if name is not None and name in part.added else None
    encoder.config.active_delta = name


def remove_delta(model: Any, name: str) -> None:
    """Take a delta off; another one goes on acting. Raises MatfmError for a name that the model does not have."""
    encoder = _encoder_of(model)
    active = encoder.config.active_delta
    use_delta(encoder, name)
    for part in _adapted(encoder):
        if name in part.added:
            del part.added[name]
    encoder.config.deltas = {other: spec for other, spec in encoder.config.deltas.items() if other != name} or None
    use_delta(encoder, active if active != name else None)
    _take_off_empty(encoder)


@torch.no_grad()
def merge_delta(model: Any, name: str) -> None:
    """Add a lora delta's updates to the encoder's own matrices: the same outputs from a plain encoder.

    Raises:
        MatfmError: it is no lora delta, or there are others, which would no longer fit.
    """
    encoder = _encoder_of(model)
    known = deltas_of(encoder)
    if name not in known or known[name].method != "lora":
        lora = [other for other, spec in known.items() if spec.method == "lora"]
        raise MatfmError(f"{name!r} is no lora delta of this model, and only those can be merged: {lora}")
    if len(known) > 1:
        others = ", ".join(other for other in known if other != name)
        raise MatfmError(f"merging {name!r} changes the encoder under its other deltas ({others}); remove them first")
    for part in _adapted(encoder):
        if isinstance(part, AdaptedLinear) and name in part.added:
            update = part.added[name]
            assert isinstance(update, LowRank)
            part.weight += update.update()
    remove_delta(encoder, name)


def delta_parameters(model: Any, name: str) -> dict[str, nn.Parameter]:
    """Parameters of a delta by their name in the encoder."""
    return {key: value for key, value in model.base_model.named_parameters() if f".added.{name}." in key}


def backbone_weights(model: Any) -> dict[str, Tensor]:
    """Weights of the encoder without any delta, by name."""
    return {key: value for key, value in model.base_model.state_dict().items() if ".added." not in key}


def _encoder_of(model: Any) -> Any:
    encoder = model.base_model
    if not hasattr(encoder.config, "deltas"):
        raise MatfmError(f"deltas need a MatBERT encoder; this is a {type(encoder).__name__}")
    return encoder


def _adapted(encoder: nn.Module) -> list[AdaptedLinear | AdaptedStack]:
    return [part for part in encoder.modules() if isinstance(part, (AdaptedLinear, AdaptedStack))]


def _add_lora(encoder: Any, name: str, spec: DeltaSpec, _: str) -> None:
    for part in _adapted_maps(encoder, spec.maps):
        part.added[name] = LowRank(part.in_features, part.out_features, spec.rank, spec.alpha).to(part.weight)


def _add_adapters(encoder: Any, name: str, spec: DeltaSpec, _: str) -> None:
    for part in _adapted_maps(encoder, _OUTPUT_MAPS):
        part.added[name] = Bottleneck(part.out_features, spec.bottleneck).to(part.weight)


def _add_prompt(encoder: Any, name: str, spec: DeltaSpec, start: str) -> None:
    stack = _adapted_stack(encoder)
    embedding = encoder.get_input_embeddings().weight
    tokens_PD = _token_embeddings(encoder, spec.length) if start == "tokens" else _random_vectors(embedding, spec)
    stack.added[name] = Prompt(tokens_PD, encoder.rotary).to(embedding)


def _add_prefix(encoder: Any, name: str, spec: DeltaSpec, start: str) -> None:
    config, stack = encoder.config, _adapted_stack(encoder)
    layers, heads, width = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    prefix = Prefix(spec.length, layers, heads, width, _RANDOM_STD).to(encoder.get_input_embeddings().weight)
    if start == "tokens":
        _start_from_tokens(encoder, stack, prefix)
    stack.added[name] = prefix


_ADD = {"adapter": _add_adapters, "lora": _add_lora, "prefix": _add_prefix, "prompt": _add_prompt}


def _adapted_maps(encoder: nn.Module, names: tuple[str, ...]) -> list[AdaptedLinear]:
    """The blocks' linear maps of these last names (all, if empty), made adaptable where they are not yet."""
    found = dict(_block_maps(encoder))
    last = {path.rpartition(".")[2] for path in found}
    if missing := [name for name in names if name not in last]:
        raise MatfmError(f"the encoder's blocks have no linear map {missing[0]!r}; they have {', '.join(sorted(last))}")
    return [_adaptable(encoder, path, m) for path, m in found.items() if not names or path.rpartition(".")[2] in names]


def _block_maps(encoder: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for prefix, block in repeated_blocks(encoder):
        for path, module in block.named_modules(prefix=prefix):
            if isinstance(module, nn.Linear):
                yield path, module


def _adaptable(encoder: nn.Module, path: str, linear: nn.Linear) -> AdaptedLinear:
    if isinstance(linear, AdaptedLinear):
        return linear
    adapted = AdaptedLinear(linear).train(linear.training)
    encoder.set_submodule(path, adapted)
    return adapted


def _adapted_stack(encoder: Any) -> AdaptedStack:
    stack = encoder.encoder
    adapted = stack if isinstance(stack, AdaptedStack) else AdaptedStack(stack).train(stack.training)
    encoder.encoder = adapted
    return adapted


def _take_off_empty(encoder: nn.Module) -> None:
    """Put plain parts back where nothing is added any more."""
    for path, part in list(encoder.named_modules()):
        if isinstance(part, AdaptedLinear) and not part.added:
            encoder.set_submodule(path, part.plain().train(part.training))
        elif isinstance(part, AdaptedStack) and not part.added:
            encoder.set_submodule(path, TransformerStack(list(part.blocks), part.norm).train(part.training))


def _random_vectors(like: Tensor, spec: DeltaSpec) -> Tensor:
    return torch.empty(spec.length, like.shape[1], device=like.device).normal_(std=_RANDOM_STD)


@torch.no_grad()
def _token_embeddings(encoder: Any, count: int) -> Tensor:
    """Of random tokens (not the padding), (P, D)."""
    embedding = encoder.get_input_embeddings().weight
    return embedding[torch.randint(1, len(embedding), (count,)).to(embedding.device)]


@torch.no_grad()
def _start_from_tokens(encoder: Any, stack: TransformerStack, prefix: Prefix) -> None:
    """Keys and values that random tokens, each a sequence of its own, have in the frozen encoder."""
    count = prefix.keys.shape[1]
    tokens_PD = _token_embeddings(encoder, count)
    context = AttentionContext.packed(PackedLayout(((count, 1),)), tokens_PD, rotary=encoder.rotary)
    states = stack(tokens_PD, context)
    for layer, block in enumerate(stack.blocks):
        assert isinstance(block, PreNormBlock)
        query_key_value = block.attention.qkv(block.attention_norm(states[layer]))
        prefix.keys[layer], prefix.values[layer] = query_key_value.chunk(3, dim=-1)[1:]
