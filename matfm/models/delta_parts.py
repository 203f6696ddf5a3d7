"""The parts that deltas add to an encoder, method by method; `matfm.models.deltas` names and chooses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from matfm.core.acceleration import repeated_blocks
from matfm.core.adapters import AdaptedEmbedding, AdaptedLinear, AddedTokens, Bottleneck, LowRank
from matfm.core.attention_context import AttentionContext
from matfm.core.layout import PackedLayout
from matfm.core.prompts import AdaptedStack, DeepPrompt, Prefix, Prompt, keys_and_values
from matfm.core.transformer import TransformerStack
from matfm.errors import MatfmError
from matfm.models.foreign_prompts import (
    ForeignPrefix,
    ForeignPrompt,
    PromptedInput,
    check_prefix,
    keys_and_values_of,
    without_dropout,
)

# P learned vectors, L layers, D width

METHODS = ("adapter", "control", "deep-prompt", "lora", "prefix", "prompt")
Adapted = AdaptedLinear | AdaptedStack | AdaptedEmbedding | PromptedInput
_OUTPUT_MAPS = ("out", "down")
"""The last maps of attention and feed-forward, behind which Houlsby et al. put their adapters."""
_FOREIGN_OUTPUT_MAPS = (
    "attention.output.dense", "output.dense",  # BERT and its kin
    "out_lin", "lin2",  # DistilBERT
    "out_proj", "fc2",  # BART, OPT, CLIP
    "o", "wo",  # T5
    "o_proj", "down_proj",  # Llama and its kin
    "Wo",  # ModernBERT
)  # fmt: skip
_RANDOM_STD = 0.02


@dataclass(frozen=True)
class DeltaSpec:
    """The shape of a delta: everything but its numbers. What another method needs stays 0."""

    method: str
    """adapter, control, deep-prompt, lora, prefix or prompt."""
    rank: int = 0
    """Of lora's updates."""
    alpha: float = 0.0
    """lora's updates are scaled by alpha / rank."""
    maps: tuple[str, ...] = ()
    """Last names of the linear maps that lora updates; all maps of the blocks if empty."""
    bottleneck: int = 0
    """Width of adapters inside."""
    length: int = 0
    """Vectors of a prompt or prefix (in each layer, where they differ), or number of control tokens."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise MatfmError(f"the method of a delta is {self.method!r}; choose one of {', '.join(METHODS)}")
        name = {"lora": "rank", "adapter": "bottleneck"}.get(self.method, "length")
        if getattr(self, name) < 1:
            raise MatfmError(f"{name} of a {self.method} delta is {getattr(self, name)}; it must be at least 1")


def adapted_parts(encoder: nn.Module) -> list[Adapted]:
    """The parts of an encoder that hold additions by name."""
    return [part for part in encoder.modules() if isinstance(part, Adapted)]


def attach(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor, check: bool) -> None:
    """Put the parts of a delta on an encoder, on which no delta acts. As `matfm.models.deltas.add_delta`.

    `check`: whether to try what only a computation can tell, which needs weights.
    """
    foreign = hasattr(encoder, "prompted")
    add = (_ADD_FOREIGN if foreign else _ADD).get(spec.method)
    if add is None:
        raise MatfmError(
            f"the strategy {spec.method!r} needs a MatBERT encoder; choose one of {', '.join(_ADD_FOREIGN)}"
        )
    add(encoder, name, spec, start)
    if foreign and check and spec.method == "prefix":
        prefix, pad = encoder.prompted.added[name], encoder.config.pad_token_id
        check_prefix(encoder.encoder, prefix, 1 if pad == 0 else 0)


def detach(encoder: nn.Module, name: str) -> None:
    """Take the parts of a delta off, and put plain ones back where nothing is added any more."""
    for part in adapted_parts(encoder):
        if name in part.added:
            del part.added[name]
    for path, part in list(encoder.named_modules()):
        if isinstance(part, (AdaptedLinear, AdaptedEmbedding)) and not part.added:
            encoder.set_submodule(path, part.plain().train(part.training))
        elif isinstance(part, AdaptedStack) and not part.added:
            encoder.set_submodule(path, TransformerStack(list(part.blocks), part.norm).train(part.training))


def _add_lora(encoder: Any, name: str, spec: DeltaSpec, _: str | Tensor) -> None:
    for part in _adapted_maps(encoder, _named(encoder, spec.maps)):
        part.added[name] = LowRank(part.in_features, part.out_features, spec.rank, spec.alpha).to(part.weight)


def _add_adapters(encoder: Any, name: str, spec: DeltaSpec, _: str | Tensor) -> None:
    for part in _adapted_maps(encoder, _named(encoder, _OUTPUT_MAPS)):
        part.added[name] = Bottleneck(part.out_features, spec.bottleneck).to(part.weight)


def _add_foreign_adapters(encoder: Any, name: str, spec: DeltaSpec, _: str | Tensor) -> None:
    endings = tuple(f".{ending}" for ending in _FOREIGN_OUTPUT_MAPS)
    paths = [path for path, _ in _block_maps(encoder) if path.endswith(endings)]
    if not paths:
        last = ", ".join(sorted({path.rpartition(".")[2] for path, _ in _block_maps(encoder)}))
        raise MatfmError(f"none of the maps of this encoder is known as the last one of a layer ({last}); choose lora")
    for part in _adapted_maps(encoder, paths):
        part.added[name] = Bottleneck(part.out_features, spec.bottleneck).to(part.weight)


def _add_prompt(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor) -> None:
    tokens_PD = _start_vectors(encoder, spec, start)
    _adapted_stack(encoder).added[name] = Prompt(tokens_PD, encoder.rotary).to(tokens_PD)


def _add_foreign_prompt(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor) -> None:
    encoder.prompted.added[name] = ForeignPrompt(_start_vectors(encoder, spec, start))


def _add_prefix(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor) -> None:
    config, stack = encoder.config, _adapted_stack(encoder)
    layers, heads, width = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    prefix = Prefix(spec.length, layers, heads, width, _RANDOM_STD).to(encoder.get_input_embeddings().weight)
    if not _is_random(start):
        _set_prefix(prefix, *_in_layers(encoder, stack, _start_vectors(encoder, spec, start), keys_and_values))
    stack.added[name] = prefix


def _add_foreign_prefix(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor) -> None:
    config, embedding = encoder.config, encoder.encoder.get_input_embeddings().weight
    heads = int(encoder.encoder.config.num_attention_heads)
    prefix = ForeignPrefix(spec.length, config.num_hidden_layers, heads, config.hidden_size, _RANDOM_STD).to(embedding)
    if not _is_random(start):
        tokens_PD = _start_vectors(encoder, spec, start)
        _set_prefix(prefix, *keys_and_values_of(encoder.encoder, tokens_PD, heads, config.num_hidden_layers))
    encoder.prompted.added[name] = prefix


def _add_deep_prompt(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor) -> None:
    stack, layers = _adapted_stack(encoder), encoder.config.num_hidden_layers
    tokens_PD = _start_vectors(encoder, spec, start)
    if _is_random(start):
        tokens_LPD = torch.stack([tokens_PD, *(_random(tokens_PD, spec) for _ in range(layers - 1))])
    else:
        (tokens_LPD,) = _in_layers(encoder, stack, tokens_PD, lambda _, hidden_PD: (hidden_PD,))
    stack.added[name] = DeepPrompt(tokens_LPD, encoder.rotary).to(tokens_PD)


def _add_control_tokens(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor) -> None:
    rows_CD = _start_vectors(encoder, spec, start)
    embedding = encoder.embed_tokens
    if not isinstance(embedding, AdaptedEmbedding):
        encoder.embed_tokens = embedding = AdaptedEmbedding(embedding).train(embedding.training)
    embedding.added[name] = AddedTokens(rows_CD)


_Add = Callable[[Any, str, DeltaSpec, "str | Tensor"], None]
_ADD: dict[str, _Add] = {
    "adapter": _add_adapters,
    "control": _add_control_tokens,
    "deep-prompt": _add_deep_prompt,
    "lora": _add_lora,
    "prefix": _add_prefix,
    "prompt": _add_prompt,
}
_ADD_FOREIGN: dict[str, _Add] = {
    "adapter": _add_foreign_adapters,
    "lora": _add_lora,
    "prefix": _add_foreign_prefix,
    "prompt": _add_foreign_prompt,
}


def _named(encoder: nn.Module, names: tuple[str, ...]) -> list[str]:
    """Paths of the blocks' linear maps of these last names; of all, if there are none."""
    found = [path for path, _ in _block_maps(encoder)]
    last = {path.rpartition(".")[2] for path in found}
    if not found:
        raise MatfmError(f"the blocks of {type(encoder).__name__} have no linear maps to adapt; choose prompt")
    if missing := [name for name in names if name not in last]:
        raise MatfmError(f"the encoder's blocks have no linear map {missing[0]!r}; they have {', '.join(sorted(last))}")
    return [path for path in found if not names or path.rpartition(".")[2] in names]


def _adapted_maps(encoder: nn.Module, paths: list[str]) -> list[AdaptedLinear]:
    """The linear maps of these paths, made adaptable where they are not yet."""
    parts = []
    for path in paths:
        linear = encoder.get_submodule(path)
        if not isinstance(linear, AdaptedLinear):
            assert isinstance(linear, nn.Linear)
            linear = AdaptedLinear(linear).train(linear.training)
            encoder.set_submodule(path, linear)
        parts.append(linear)
    return parts


def _block_maps(encoder: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    seen = set()
    for prefix, block in repeated_blocks(encoder):
        for path, module in block.named_modules(prefix=prefix):
            if isinstance(module, nn.Linear) and path not in seen:
                seen.add(path)
                yield path, module


def _adapted_stack(encoder: Any) -> AdaptedStack:
    stack = encoder.encoder
    adapted = stack if isinstance(stack, AdaptedStack) else AdaptedStack(stack).train(stack.training)
    encoder.encoder = adapted
    return adapted


def _is_random(start: str | Tensor) -> bool:
    return isinstance(start, str) and start == "random"


def _start_vectors(encoder: Any, spec: DeltaSpec, start: str | Tensor) -> Tensor:
    """Of the input's width, (P, D): random numbers, embeddings of random tokens, or those given, in turn."""
    embedding = _embedding(encoder).detach()
    if isinstance(start, Tensor):
        vectors = start.to(embedding)
        return vectors[torch.arange(spec.length, device=embedding.device) % len(vectors)]
    return _random(embedding, spec) if start == "random" else _token_embeddings(encoder, embedding, spec.length)


def _embedding(encoder: Any) -> Tensor:
    weight: Tensor = (encoder.encoder if hasattr(encoder, "prompted") else encoder).get_input_embeddings().weight
    return weight


def _random(like: Tensor, spec: DeltaSpec) -> Tensor:
    return torch.empty(spec.length, like.shape[1], device=like.device, dtype=like.dtype).normal_(std=_RANDOM_STD)


def _token_embeddings(encoder: Any, embedding: Tensor, count: int) -> Tensor:
    """Of random tokens (not the padding), (P, D)."""
    drawn = torch.randint(1, len(embedding), (count,)).to(embedding.device)
    pad = encoder.config.pad_token_id
    return embedding[torch.where(drawn == pad, 0, drawn) if pad else drawn]


@torch.no_grad()
def _in_layers(encoder: Any, stack: TransformerStack, tokens_PD: Tensor, read: Callable[..., Any]) -> list[Tensor]:
    """What `read(block, its input)` gives in every layer for tokens that are each a sequence of its own, (L, P, D)."""
    context = AttentionContext.packed(PackedLayout(((len(tokens_PD), 1),)), tokens_PD, rotary=encoder.rotary)
    with without_dropout(stack):
        states = stack(tokens_PD, context)
    return [
        torch.stack(side)
        for side in zip(*(read(block, states[layer]) for layer, block in enumerate(stack.blocks)), strict=True)
    ]


@torch.no_grad()
def _set_prefix(prefix: Prefix | ForeignPrefix, keys_LPD: Tensor, values_LPD: Tensor) -> None:
    prefix.keys.copy_(keys_LPD)
    prefix.values.copy_(values_LPD)
