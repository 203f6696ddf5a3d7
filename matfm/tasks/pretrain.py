"""`matfm pretrain`: masked elements and several properties at once, on one table of formulas."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.formula import read_formula
from matfm.chem.masking import MaskingConfig, mask_elements
from matfm.chem.units import Property
from matfm.core.batching import EpochBatches, RaggedTokens, TokenBatch
from matfm.core.config import to_mapping
from matfm.core.distributed import process_group
from matfm.core.loop_config import LoopOptions
from matfm.core.objectives import masked_lm_loss
from matfm.core.optim import OptimizerConfig
from matfm.core.run_directory import RunDirectory
from matfm.core.trainer import Evaluation, LoopConfig, StepFunction, StepOutput, fit, remove_checkpoints
from matfm.errors import MatfmError
from matfm.models.inference import predict_properties
from matfm.models.matbert import MatBERTForPretraining
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.pooling import POOLINGS
from matfm.models.saving import save_model
from matfm.tasks import cards, data, plots
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import EncodedRows, encode_formulas, parse_number
from matfm.tasks.readings import readings_to_check
from matfm.tasks.recipes import load_recipe
from matfm.tasks.tables import Chunk, column_property, read_table


@dataclass(frozen=True)
class CorpusConfig:
    """What is learned from."""

    targets: tuple[str, ...]
    """Property columns; a row may miss some."""
    recipe: str = ""
    """Shipped recipe or path of one; built into the run directory's `data` folder if need be."""
    table: str = ""
    """A table of the user's, instead of a recipe."""
    input: str = "formula"
    """Column with the formula."""
    held_out: float = 0.03
    """Share of compositions never trained on, chosen by a hash of the composition."""

    def __post_init__(self) -> None:
        if bool(self.recipe) == bool(self.table):
            raise MatfmError("data.recipe and data.table: give exactly one of them")
        if not 0 < self.held_out < 1:
            raise MatfmError(f"data.held_out is {self.held_out}; it is a share between 0 and 1")


@dataclass(frozen=True)
class ModelConfig:
    """The encoder."""

    size: str = "small"
    """tiny, small, base or large."""
    pooling: str = "mean"
    """mean or cls."""
    dropout: float = 0.0
    """Dropout after attention and feed-forward, and in the head."""
    loss: str = "l1"
    """l1, l2 or huber, on scaled targets."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopOptions):
    """Length and batches, and the options of the loop."""

    epochs: float = 8.0
    """Passes over the training rows."""
    tokens_per_batch: int = 4096
    """Tokens of a batch (a formula has one per element and one more)."""
    masked_weight: float = 0.1
    """Weight of a masked element's cross-entropy beside a property's loss."""
    label_smoothing: float = 0.0
    """Share of a masked element's target spread over all elements."""
    evaluations: int = 10
    """Evaluations on the held-out rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise MatfmError(f"train.label_smoothing is {self.label_smoothing}; it is a share in [0, 1)")


@dataclass(frozen=True)
class PretrainConfig:
    """`matfm pretrain`."""

    data: CorpusConfig
    """What is learned from."""
    name: str = "matbert"
    """Name on the card."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The encoder."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length and batches."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Masked elements."""
    seed: int = 0
    """Seed of weights, batches and masks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        self.masking.check_for_formulas()


@dataclass(frozen=True)
class Corpus:
    """Training and held-out rows."""

    train: RaggedTokens
    held_out: RaggedTokens
    properties: tuple[Property, ...]
    rejects: list[data.Reject]
    warnings: dict[int, str]
    """Row in the table to a reading of its formula that should be checked."""


def run(config: PretrainConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Train from scratch and write a run directory; returns the summary.

    Started by torchrun, the processes train together and the first one writes; all must see `out`.
    """
    device = resolve_device(config.device)
    with process_group(device) as ranks:
        directory = RunDirectory(out)
        if ranks.first:
            directory = RunDirectory.open(out, to_mapping(config), resume)
        ranks.wait()
        if (finished := directory.finished_summary()) is not None:
            return finished
        # The first process builds the recipe, if there is one, and the others read what it built.
        corpus = ranks.in_order(lambda: load_corpus(config.data, out))
        if ranks.first:
            data.write_rejects(out / "rejects.csv", corpus.rejects)
        model, result = train(config, corpus, out, device, resume)
        if ranks.first:
            _write_results(config, corpus, model, result, directory)
        ranks.wait()
    return directory.summary()


def train(
    config: PretrainConfig, corpus: Corpus, out: Path, device: torch.device, resume: bool
) -> tuple[MatBERTForPretraining, dict[str, Any]]:
    """The trained model, and what `fit` says of it."""
    model = new_model(config, corpus)
    batches = EpochBatches(corpus.train, config.train.tokens_per_batch, config.seed)
    steps = math.ceil(config.train.epochs * batches.batches_per_epoch / config.train.accumulate)
    loop = LoopConfig(**config.train.options(), steps=steps, evaluate_every=math.ceil(steps / config.train.evaluations))
    result = fit(
        model,
        pretraining_step(config),
        batches,
        config.optimizer,
        loop,
        out,
        seed=config.seed,
        device=device,
        evaluate=held_out_errors(corpus.held_out, config.data.targets, device),
        resume=resume,
        label="pretrain",
    )
    return model, result


def _write_results(
    config: PretrainConfig,
    corpus: Corpus,
    model: MatBERTForPretraining,
    result: dict[str, Any],
    directory: RunDirectory,
) -> None:
    out = directory.path
    save_model(model.cpu(), out, to_mapping(config))
    CompositionTokenizer().save_pretrained(str(out))
    summary = {
        "task": "pretrain",
        "name": config.name,
        "rows_in": len(corpus.train) + len(corpus.held_out) + len(corpus.rejects),
        "rows_used": len(corpus.train) + len(corpus.held_out),
        "rows_rejected": len(corpus.rejects),
        **readings_to_check(corpus.warnings),
        "rows_held_out": len(corpus.held_out),
        "parameters": sum(p.numel() for p in model.parameters()),
        **result,
        "units": {known.name: known.unit for known in corpus.properties},
    }
    directory.write_metrics(result["valid"])
    plots.draw_curves(out)
    plots.draw_diagnostics(out)
    recipe = load_recipe(config.data.recipe) if config.data.recipe else None
    cards.write_pretraining_card(out, config, summary, recipe)
    directory.finish(summary)
    remove_checkpoints(out)


def load_corpus(config: CorpusConfig, out: Path) -> Corpus:
    """Read, tokenize and split the table."""
    path = config.table or _built_recipe(config.recipe, out)
    table = read_table(path)
    encoded = encode_formulas(table.column(config.input, path))
    rejects = [
        data.Reject(row, config.input, table.columns[config.input][row], why) for row, why in encoded.errors.items()
    ]
    targets, bad = _targets(table, encoded, config.targets, path)
    encoded.tokens.targets_RK = targets
    held_out = np.array(
        [_hash_share(table.columns[config.input][row]) < config.held_out for row in encoded.rows], dtype=bool
    )
    properties = tuple(column_property(path, target) for target in config.targets)
    train = encoded.tokens.take(np.flatnonzero(~held_out))
    if len(train) == 0 or not held_out.any():
        raise MatfmError(f"{path} has {len(encoded.rows)} readable rows, too few to hold out {config.held_out:.0%}")
    held_out_rows = encoded.tokens.take(np.flatnonzero(held_out))
    return Corpus(train, held_out_rows, properties, rejects + bad, encoded.warnings)


def new_model(config: PretrainConfig, corpus: Corpus) -> MatBERTForPretraining:
    """A randomly initialised model whose head is scaled to the training targets."""
    architecture = MatBERTConfig.of_size(
        config.model.size,
        pooling=config.model.pooling,
        hidden_dropout_prob=config.model.dropout,
        property_names=list(config.data.targets),
        property_units=[known.unit for known in corpus.properties],
        property_loss=config.model.loss,
    )
    torch.manual_seed(config.seed)
    model = MatBERTForPretraining(architecture)
    targets_RK = torch.from_numpy(corpus.train.targets_RK)
    model.property_head.set_scaling(targets_RK.nanmean(dim=0), torch.from_numpy(np.nanstd(targets_RK.numpy(), axis=0)))
    model.property_head.set_bounds(*torch.tensor([known.limits for known in corpus.properties]).T)
    return model


def pretraining_step(config: PretrainConfig) -> StepFunction:
    """Property loss on intact formulas plus cross-entropy of masked elements, per formula."""

    def step(model: MatBERTForPretraining, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        masked = mask_elements(batch.ids_N, batch.layout, config.masking, rng)
        hidden_ND = model.matbert.forward_packed(masked.ids_N, batch.amounts_N, batch.layout)
        raw_BK = model.property_head(POOLINGS[model.config.pooling](hidden_ND, batch.layout))
        targets_BK = batch.targets_BK.masked_fill(masked.masked_row_B[:, None], math.nan)
        property_sum, property_weight = model.loss(raw_BK, targets_BK)
        masked_sum, masked_weight = masked_lm_loss(
            model.lm_head(hidden_ND[masked.positions_M]), masked.labels_M, config.train.label_smoothing
        )
        return StepOutput(
            property_sum + config.train.masked_weight * masked_sum,
            torch.tensor(float(batch.layout.sequences), device=hidden_ND.device),
            {"property": (property_sum, property_weight), "masked": (masked_sum, masked_weight)},
        )

    return step


def held_out_errors(held_out: RaggedTokens, targets: tuple[str, ...], device: torch.device) -> Evaluation:
    """Mean absolute error of every property in its unit; `score` is their mean in standard deviations."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        errors_RK = np.abs(predict_properties(model, held_out, device) - held_out.targets_RK)
        mae_K = np.nanmean(errors_RK, axis=0)
        score = float(np.mean(mae_K / np.nanstd(held_out.targets_RK, axis=0)))
        return {"score": score, **{f"mae_{name}": float(mae) for name, mae in zip(targets, mae_K, strict=True)}}

    return evaluate


def _built_recipe(name: str, out: Path) -> str:
    recipe = load_recipe(name)
    path = out / "data" / f"{recipe.name}.parquet"
    if not path.is_file():
        data.run(data.BuildConfig(name, str(path.parent)))
    return str(path)


def _targets(
    table: Chunk, encoded: EncodedRows, names: tuple[str, ...], path: str
) -> tuple[np.ndarray, list[data.Reject]]:
    """Targets of the readable rows; cells that are not numbers are missing labels, and are reported."""
    rejects: list[data.Reject] = []
    columns = []
    for name in names:
        cells, values = table.column(name, path), np.full(len(encoded.rows), np.nan, np.float32)
        for position, row in enumerate(encoded.rows):
            try:
                values[position] = parse_number(cells[row])
            except MatfmError as error:
                rejects.append(data.Reject(int(row), name, cells[row], str(error)))
        columns.append(values)
    return np.stack(columns, axis=1), rejects


def _hash_share(formula: str) -> float:
    """A number in [0, 1) that depends only on the composition, however the formula is written."""
    key = " ".join(f"{symbol}{fraction:.6f}" for symbol, fraction in sorted(read_formula(formula).fractions.items()))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
