"""`matfm fewshot`: train an encoder over many small tasks, and score few-shot methods on tasks it never saw."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.core.bundled import MODEL_FILE
from matfm.core.config import to_mapping
from matfm.core.locks import alone_in_folder
from matfm.core.loop_config import LoopOptions
from matfm.core.optim import OptimizerConfig
from matfm.core.process import refuse_several
from matfm.core.run_directory import RunDirectory
from matfm.errors import MatfmError
from matfm.models.backbones import load_encoder
from matfm.models.fewshot_encoder import DESCRIPTION, FewShotConfig, FewShotEncoder, is_fewshot, load_fewshot
from matfm.models.prototypes import DISTANCES
from matfm.models.saving import save_tokenizer
from matfm.models.strategies import STRATEGIES, StrategyOptions
from matfm.tasks import plots
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import EncodedRows, RowEncoder, parse_number
from matfm.tasks.enumeration import encode_forms
from matfm.tasks.few_shot.card import write_card
from matfm.tasks.few_shot.classical_features import CHOICES, classical_block, classical_features, network_inputs
from matfm.tasks.few_shot.episodes import (
    RATIOS,
    EpisodeBatches,
    EpisodeSampler,
    TaskTable,
    median_classes,
    quantile_classes,
)
from matfm.tasks.few_shot.evaluation import Bench, check_methods, evaluate, summarise
from matfm.tasks.few_shot.features import Featuriser, fewshot_encoder
from matfm.tasks.few_shot.predictions import write_predictions
from matfm.tasks.few_shot.training import meta_train
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.rejects import ON_BAD, Reject, write_rejects
from matfm.tasks.tables import Chunk, read_table

# R rows, T tasks

IN_PLACE = tuple(name for name in STRATEGIES if not StrategyOptions(strategy=name).adds_delta)
LABELS = ("classes", "median", "quantiles", "numbers")
CLASS_METRICS, NUMBER_METRICS = ("delta_auprc", "roc_auc", "accuracy"), ("mae", "r2")


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """What an episode is."""

    ways: int = 2
    """Classes of an episode."""
    support: tuple[int, ...] = (16, 32, 64)
    """Support examples in all; training draws one of these sizes for every episode. N-way K-shot: N·K, balanced."""
    queries: int = 64
    """At most so many queries."""
    ratio: str = "natural"
    """natural or balanced classes in the support."""
    copies: int = 1
    """Forms in which a support example comes in training: other SMILES of the molecule, or amounts with noise."""
    jitter: float = 0.02
    """Relative deviation of the amounts of such copies (compositions)."""

    def __post_init__(self) -> None:
        if self.ratio not in RATIOS:
            raise MatfmError(f"episodes.ratio is {self.ratio!r}; choose one of {', '.join(RATIOS)}")
        if self.copies < 1 or self.jitter < 0:
            raise MatfmError(f"episodes.copies is {self.copies} and jitter {self.jitter}; at least 1 and 0 are needed")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopOptions):
    """Training over tasks."""

    accumulate: int = 4
    """Episodes per optimizer step."""
    steps: int = 1000
    """Optimizer steps."""
    strategy: str = "full"
    """What of the encoder is trained: full, partial (its last blocks), bitfit (biases) or feature (nothing)."""
    evaluations: int = 10
    """Evaluations on the validation tasks, if there are any; the best weights are kept."""
    valid_episodes: int = 50
    """Episodes of such an evaluation."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=3e-4, layer_decay=0.75))
    """Optimizer and schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy not in IN_PLACE:
            raise MatfmError(f"train.strategy is {self.strategy!r}; choose one of {', '.join(IN_PLACE)}")
        if self.steps < 1 or self.evaluations < 1 or self.valid_episodes < 1:
            raise MatfmError("train.steps, evaluations and valid_episodes must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scores on tasks that were not trained on."""

    support: tuple[int, ...] = ()
    """Sizes of support; those of the episodes if empty."""
    episodes: int = 200
    """Of each task and size."""
    queries: int = 256
    """At most so many queries."""
    methods: tuple[str, ...] = ("prototypes", "kernel", "rf", "lr", "knn", "gp", "linear-probe")
    """Also embedding-kernel, and finetune, which takes seconds an episode."""


@dataclass(frozen=True, kw_only=True)
class FewshotConfig:
    """`matfm fewshot`."""

    table: str
    """Table with one column a task; empty cells are missing labels."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    train_tasks: tuple[str, ...] = ()
    """Columns to train over; without any the backbone is evaluated as it is."""
    valid_tasks: tuple[str, ...] = ()
    """Columns by which the best weights are chosen."""
    test_tasks: tuple[str, ...] = ()
    """Columns to evaluate on."""
    labels: str = "classes"
    """classes (0, 1, …), median (numbers, cut there), quantiles (numbers, cut into `episodes.ways`) or numbers."""
    backbone: str = "matbert-small"
    """Bundled name, folder or Hub id."""
    kind: str | None = None
    """composition, smiles or selfies; None is what the backbone reads."""
    on_bad: str = "skip"
    """Rows that cannot be read or have no label: skip (they are listed), or stop."""
    classical: str = "auto"
    """Features beside the embedding: auto (ECFP or atomic fractions), none, ecfp, fractions or magpie."""
    distance: str = "mahalanobis"
    """euclidean, cosine or mahalanobis."""
    width: int = 256
    """Of the projection of embedding and classical features; 0 compares the embeddings alone."""
    dropout: float = 0.1
    """In the projection."""
    refinements: int = 0
    """Rounds in which the queries move the prototypes (transductive)."""
    seed: int = 0
    """Of episodes and weights."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    cache: str | None = None
    """Folder that keeps embeddings."""
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        for name, known in (("labels", LABELS), ("classical", CHOICES), ("distance", tuple(DISTANCES))):
            if getattr(self, name) not in known:
                raise MatfmError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        if self.on_bad not in ON_BAD:
            raise MatfmError(f"on_bad is {self.on_bad!r}; choose one of {', '.join(ON_BAD)}")
        names = (*self.train_tasks, *self.valid_tasks, *self.test_tasks)
        if not (self.train_tasks or self.test_tasks):
            raise MatfmError("neither train_tasks nor test_tasks is given; name columns of the table")
        double = [name for name in names if names.count(name) > 1]
        if double:
            raise MatfmError(f"task {double[0]!r} is named twice; training, validation and test tasks must differ")
        if self.test_tasks:
            check_methods(self.evaluate.methods, self.labels == "numbers")
        EpisodeSampler(TaskTable((), np.zeros((0, 0)), self.labels == "numbers"), **_sampled(self.episodes))


@dataclass(frozen=True)
class TaskRows:
    """The readable rows of a table of tasks."""

    inputs: list[str]
    encoded: EncodedRows
    values_RT: np.ndarray
    names: tuple[str, ...]
    rejects: list[Reject]
    rows: np.ndarray
    """Row of the table of each, (R,)."""


@alone_in_folder
def run(config: FewshotConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Train over tasks and evaluate, as far as such tasks are named; returns the summary."""
    refuse_several("matfm fewshot")
    started = time.perf_counter()
    encoder = backbone_encoder(config.backbone, config.kind)
    data = read_task_rows(read_table(config.table), config, encoder)
    directory = RunDirectory.open(out, to_mapping(config), resume)
    if (finished := directory.finished_summary()) is not None:
        return finished
    write_rejects(out / "rejects.csv", data.rejects)
    told: dict[str, Any] = {}
    if config.train_tasks:
        model = _trained(config, data, encoder, out, resume, told)
    else:
        model = fewshot_encoder(config.backbone, encoder.kind)
    rows = _evaluated(config, data, encoder, model, out) if config.test_tasks else []
    directory.write_metrics({"test": rows})
    summary = {
        "task": "fewshot",
        "kind": encoder.kind,
        "backbone": config.backbone,
        "tasks": {
            "train": len(config.train_tasks),
            "valid": len(config.valid_tasks),
            "test": len(config.test_tasks),
        },
        "rows_in": len(data.inputs) + len(data.rejects),
        "rows_used": len(data.inputs),
        "rows_rejected": len(data.rejects),
        **told,
        "metrics": rows,
        "seed": config.seed,
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_card(out, config, summary)
    if config.train_tasks:
        plots.draw_curves(out)
        plots.draw_diagnostics(out)
    directory.finish(summary)
    return directory.summary()


def read_task_rows(table: Chunk, config: FewshotConfig, encoder: RowEncoder) -> TaskRows:
    """Inputs and labels; rows whose input or a label cannot be read, or without any label, are rejected.

    Raises:
        MatfmError: there is no such column, or no row is left.
    """
    names = (*config.train_tasks, *config.valid_tasks, *config.test_tasks)
    inputs = table.column(config.input, config.table)
    encoded = encoder(inputs)
    reasons = {row: (config.input, reason) for row, reason in {**encoded.errors, **table.errors}.items()}
    values_RT = np.full((table.rows, len(names)), np.nan)
    for column, name in enumerate(names):
        for row, cell in enumerate(table.column(name, config.table)):
            try:
                values_RT[row, column] = parse_number(cell)
            except MatfmError as error:
                reasons.setdefault(row, (name, str(error)))
    for row in np.flatnonzero(np.isnan(values_RT).all(axis=1)).tolist():
        reasons.setdefault(row, (names[0], "no label in any task"))
    rejects = [Reject(row, name, table.columns[name][row], why) for row, (name, why) in sorted(reasons.items())]
    if rejects and config.on_bad == "stop":
        first = rejects[0]
        raise MatfmError(f"{config.table}, row {first.row}, column {first.column!r}: {first.reason} (on_bad = 'stop')")
    if len(rejects) == table.rows:
        raise MatfmError(f"{config.table}: no row can be used{f'; row 0: {rejects[0].reason}' if rejects else ''}")
    used = np.flatnonzero([row not in reasons for row in encoded.rows])
    rows = encoded.rows[used]
    kept = replace(encoded, tokens=encoded.tokens.take(used), rows=np.arange(len(rows)), errors={})
    return TaskRows([inputs[row] for row in rows], kept, values_RT[rows], names, rejects, rows)


def task_table(values_RT: np.ndarray, names: tuple[str, ...], labels: str, ways: int) -> TaskTable:
    """Labels as `FewshotConfig.labels` says.

    Raises:
        MatfmError: labels that should be class numbers are others.
    """
    if labels == "median":
        return TaskTable(names, median_classes(values_RT))
    if labels == "quantiles":
        return TaskTable(names, quantile_classes(values_RT, ways))
    present = values_RT[~np.isnan(values_RT)]
    if labels == "classes" and (present != np.round(present)).any():
        raise MatfmError("labels is 'classes' and some are no whole numbers; choose median, quantiles or numbers")
    return TaskTable(names, values_RT, labels == "numbers")


def _trained(
    config: FewshotConfig, data: TaskRows, encoder: RowEncoder, out: Path, resume: bool, told: dict[str, Any]
) -> FewShotEncoder:
    """The encoder after training over tasks, which is saved in `out`."""
    if resume and (out / DESCRIPTION).is_file() and (out / MODEL_FILE).is_file():
        return load_fewshot(str(out))
    block = classical_block(config.classical, encoder.kind) if config.width else None
    beside = None
    if block is not None:
        beside = network_inputs(block, classical_features(block, data.inputs, encoder.kind))
    torch.manual_seed(config.seed)
    settings = FewShotConfig(
        config.distance, config.width, block.name if block else "none", block.width if block else 0,
        config.dropout, config.refinements,
    )  # fmt: skip
    model = FewShotEncoder(load_encoder(config.backbone, encoder.kind), settings)
    table = task_table(data.values_RT, data.names, config.labels, config.episodes.ways)
    sampler = EpisodeSampler(table.only(config.train_tasks), seed=config.seed, **_sampled(config.episodes))
    tokens, forms = data.encoded.tokens, None
    if config.episodes.copies > 1 and encoder.kind != "composition":
        tokens, forms = encode_forms(encoder, data.inputs, config.episodes.copies, config.seed)
    jitter = config.episodes.jitter if encoder.kind == "composition" else 0.0
    batches = EpisodeBatches(sampler, tokens, forms, config.episodes.copies, jitter)
    validation = None
    if config.valid_tasks:
        judged = EpisodeSampler(table.only(config.valid_tasks), seed=config.seed, **_sampled(config.episodes))
        every = -(-config.train.steps // config.train.evaluations)
        validation = (judged, config.train.valid_episodes, every)
    save_tokenizer(encoder.tokenizer, out)  # before the weights, which read nothing without it
    result = meta_train(
        model, batches, beside, config.train, config.train.optimizer, config.train.steps, out,
        strategy=config.train.strategy, seed=config.seed, device=resolve_device(config.device),
        record=to_mapping(config), validation=validation, resume=resume,
    )  # fmt: skip
    told |= {"steps": result["steps"], "trainable_share": result["trainable_share"], "valid": result["valid"]}
    return model


def _evaluated(
    config: FewshotConfig, data: TaskRows, encoder: RowEncoder, model: FewShotEncoder, out: Path
) -> list[dict[str, Any]]:
    """Scores on the test tasks."""
    device = resolve_device(config.device)
    cache = None if config.cache is None else Path(config.cache)
    table = task_table(data.values_RT, data.names, config.labels, config.episodes.ways).only(config.test_tasks)
    labelled = np.flatnonzero(~np.isnan(table.labels_RT).all(axis=1))
    table = replace(table, labels_RT=table.labels_RT[labelled])
    inputs = [data.inputs[row] for row in labelled]
    described = Featuriser(model, encoder, config.classical, device, cache)(inputs).all_of(inputs)
    options = {**_sampled(config.episodes), "queries": config.evaluate.queries}
    sizes = config.evaluate.support or config.episodes.support
    sampler = EpisodeSampler(table, seed=config.seed, **{**options, "support": sizes})
    # What stands on the encoder runs where the encoder does; episodes are small, so scorers stay on the CPU.
    head = model.prototype_head.cpu() if config.train_tasks or is_fewshot(config.backbone) else None
    bench = Bench(sampler, inputs, described, encoder, config.backbone, device, head, config.refinements)
    methods, answers = config.evaluate.methods, dict[tuple[str, int, str], np.ndarray]()
    records = evaluate(bench, sizes, config.evaluate.episodes, methods, out / "episodes.jsonl", answers=answers)
    write_predictions(out, bench, sizes, methods, answers, data.rows[labelled])
    return summarise(records, NUMBER_METRICS if config.labels == "numbers" else CLASS_METRICS)


def _sampled(episodes: EpisodeConfig) -> dict[str, Any]:
    return {
        "support": episodes.support,
        "queries": episodes.queries,
        "ways": episodes.ways,
        "ratio": episodes.ratio,
    }
