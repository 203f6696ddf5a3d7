"""`matfm deltas analyse`: embeddings with and without a prompt, drawn, and how much each layer attends to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matfm.core.files import write_json
from matfm.core.layout import PackedLayout
from matfm.errors import MatfmError
from matfm.models.backbones import Encoder, load_encoder
from matfm.models.deltas import delta_parameters, deltas_of, use_delta
from matfm.models.inference import map_rows
from matfm.models.strategies import PROMPTS
from matfm.tasks import plots
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import FormulaEncoder, parse_number
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.projection import two_dimensions
from matfm.tasks.tables import read_table

# R rows, D width, B sequences, T tokens, P vectors of a prompt, L layers, H heads

ATTENTION_ROWS = 256
"""Rows that attention is measured on at most."""


@dataclass(frozen=True)
class AnalyseConfig:
    """`matfm deltas analyse`."""

    run: str
    """Run directory of the strategy prompt, deep-prompt, prefix or control."""
    table: str
    """Table to read."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    color: str
    """Column with numbers or names of classes, by which points are coloured; rows without one are left out."""
    out: str
    """Folder to write."""
    rows: int = 1000
    """Rows at most, drawn at random."""
    seed: int = 0
    """Of the rows and of t-SNE."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.rows < 3:
            raise MatfmError(f"--rows is {self.rows}; a picture needs at least 3")


@dataclass(frozen=True)
class PromptAttention:
    """Share of the attention of tokens that goes to a prompt, the mean over tokens and heads."""

    share_L: np.ndarray
    """By layer, 0 to 1."""
    even: float
    """What it would be if tokens attended to all they see alike: the mean of P / (P + T) over the tokens."""


def run(config: AnalyseConfig) -> dict[str, Any]:
    """Write `embeddings.png` and `analysis.json`; returns the summary.

    Raises:
        MatfmError: the run has no prompt, or too few rows can be used.
    """
    device = resolve_device(config.device)
    encoder: Encoder = load_encoder(config.run).to(device)
    name, method = prompt_of(encoder, config.run)
    examples, color_R, classes = _coloured_rows(config)
    with_RD = pooled(encoder, examples, device)
    use_delta(encoder, None)
    without = _without_control(examples) if method == "control" else examples
    without_RD = pooled(encoder, without, device)
    use_delta(encoder, name)
    out = Path(config.out)
    draw_embeddings(out / "embeddings.png", without_RD, with_RD, color_R, config.color, classes, config.seed)
    attention = None if method == "control" else attention_to_prompt(encoder, examples, device)
    summary = {
        "task": "deltas analyse",
        "run": config.run,
        "strategy": method,
        "rows": len(examples),
        "attention_to_prompt": None if attention is None else [round(float(s), 4) for s in attention.share_L],
        "attention_if_even": None if attention is None else round(attention.even, 4),
        "out": config.out,
    }
    write_json(out / "analysis.json", summary)
    return summary


def prompt_of(encoder: Any, where: str) -> tuple[str, str]:
    """Name and method of the prompt that acts. Raises MatfmError where none does."""
    name = encoder.config.active_delta
    method = deltas_of(encoder)[name].method if name else None
    if name is None or method not in PROMPTS:
        raise MatfmError(f"{where} has no prompt; fine-tune one with --strategy {', '.join(PROMPTS)}")
    return name, method


def pooled(encoder: Any, examples: Examples, device: torch.device) -> np.ndarray:
    """Vectors of the rows (R, D) with what acts on the encoder now."""
    return map_rows(
        encoder, examples.tokens, lambda batch: encoder.embed_packed(batch.ids_N, batch.amounts_N, batch.layout), device
    )


@torch.no_grad()
def attention_to_prompt(encoder: Any, examples: Examples, device: torch.device, seed: int = 0) -> PromptAttention:
    """How much the tokens of up to 256 rows attend to the prompt that acts, in every layer.

    Raises:
        MatfmError: the encoder gives no attention maps, or its delta puts nothing into attention.
    """
    name, method = prompt_of(encoder, "this encoder")
    if method == "control":
        raise MatfmError("control tokens are tokens of the input: their share of attention is that of other tokens")
    rows = np.random.default_rng(seed).permutation(len(examples))[:ATTENTION_ROWS]
    batch = examples.tokens.take(rows).batch(np.arange(len(rows))).to(device)
    ids_BT, mask_BT = _padded(batch.ids_N, batch.layout), _padded(torch.ones_like(batch.ids_N), batch.layout)
    inputs = {"amounts": _padded(batch.amounts_N, batch.layout)} if hasattr(encoder, "embed_amounts") else {}
    maps = _maps(encoder, ids_BT, mask_BT, inputs)
    length = next(iter(delta_parameters(encoder, name).values())).shape[-2]
    real_BT = mask_BT.bool()
    shares = [weights[..., :length].sum(dim=-1).mean(dim=1)[real_BT].mean().item() for weights in maps]
    tokens_B = mask_BT.sum(dim=1)
    even_B = length / (length + tokens_B)
    return PromptAttention(np.array(shares), float((even_B * tokens_B).sum() / tokens_B.sum()))


def draw_embeddings(
    path: Path,
    without_RD: np.ndarray,
    with_RD: np.ndarray,
    color_R: np.ndarray,
    label: str,
    classes: tuple[str, ...] = (),
    seed: int = 0,
) -> None:
    """A picture of embeddings in two dimensions: without and with a prompt, by PCA and by t-SNE.

    Args:
        path: of the picture.
        without_RD: vectors without the prompt.
        with_RD: of the same rows with it.
        color_R: numbers, or positions in `classes`.
        label: of the colours.
        classes: their names.
        seed: of t-SNE.
    """
    panels = {}
    for side, vectors_RD in (("without prompt", without_RD), ("with prompt", with_RD)):
        for method, flat_R2 in two_dimensions(vectors_RD, seed).items():
            panels[f"{method}, {side}"] = flat_R2
    plots.draw_points(path, panels, color_R, label, classes)


def _coloured_rows(config: AnalyseConfig) -> tuple[Examples, np.ndarray, tuple[str, ...]]:
    """Readable rows with a colour, the colour of each, and the names of the colours if they are classes."""
    table = read_table(config.table)
    cells, texts = table.column(config.input, config.table), table.column(config.color, config.table)
    encoded = backbone_encoder(config.run)(cells)
    kept = [k for k, row in enumerate(encoded.rows.tolist()) if texts[row].strip()]
    drawn = np.random.default_rng(config.seed).permutation(len(kept))[: config.rows]
    rows = np.array(kept, np.int64)[np.sort(drawn)]
    if len(rows) < 3:
        raise MatfmError(f"{config.table} has {len(rows)} readable rows with a {config.color!r}; a picture needs 3")
    named = [texts[row].strip() for row in encoded.rows[rows].tolist()]
    try:
        return Examples(encoded.tokens.take(rows)), np.array([parse_number(text) for text in named]), ()
    except MatfmError:
        classes = tuple(sorted(set(named)))
        return Examples(encoded.tokens.take(rows)), np.array([classes.index(text) for text in named], float), classes


def _without_control(examples: Examples) -> Examples:
    """The rows as the plain encoder reads them."""
    tokens, vocabulary = examples.tokens, len(FormulaEncoder().tokenizer)
    kept_N = tokens.ids_N < vocabulary
    lengths_R = np.add.reduceat(kept_N, tokens.offsets[:-1])
    offsets = np.concatenate([[0], np.cumsum(lengths_R)])
    return Examples(type(tokens)(tokens.ids_N[kept_N], tokens.amounts_N[kept_N], offsets, tokens.targets_RK))


def _padded(values_N: Tensor, layout: PackedLayout) -> Tensor:
    """(B, T), zero at padding."""
    lengths = layout.lengths()
    return torch.nn.utils.rnn.pad_sequence(list(values_N.split(lengths)), batch_first=True)


def _maps(encoder: Any, ids_BT: Tensor, mask_BT: Tensor, inputs: dict[str, Tensor]) -> Any:
    """Attention of every layer (B, H, T, P + T)."""
    foreign = getattr(encoder, "prompted", None)
    if foreign is None:
        return encoder(ids_BT, mask_BT, **inputs, output_attentions=True).attentions
    before = encoder.encoder.config._attn_implementation
    try:
        encoder.encoder.set_attn_implementation("eager")  # fused kernels keep no maps
        maps = encoder(ids_BT, mask_BT, output_attentions=True).attentions
    except (ValueError, AttributeError, TypeError) as error:
        raise MatfmError(f"{type(encoder.encoder).__name__} gives no attention maps ({error})") from error
    finally:
        encoder.encoder.set_attn_implementation(before)
    if not maps:
        raise MatfmError(f"{type(encoder.encoder).__name__} gives no attention maps")
    return maps
