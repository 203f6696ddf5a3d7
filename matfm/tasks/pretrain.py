"""`matfm pretrain`: one configuration for every kind of sequence, model family and objective."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import torch

from matfm.core.batching import RaggedTokens
from matfm.core.config import to_mapping
from matfm.core.distributed import process_group
from matfm.core.files import sha256_of, write_text
from matfm.core.locks import alone_in_folder
from matfm.core.property_bins import PropertyBins
from matfm.core.run_directory import RunDirectory
from matfm.core.run_log import LOG_FILE, read_log
from matfm.core.trainer import LoopConfig, StepFunction, fit, remove_checkpoints
from matfm.errors import MatfmError
from matfm.models.saving import save_model, save_tokenizer
from matfm.tasks import cards, data, plots
from matfm.tasks.devices import resolve_device
from matfm.tasks.pretraining.amounts import AmountsObjective
from matfm.tasks.pretraining.config import CorpusConfig, ModelConfig, PretrainConfig, TrainConfig
from matfm.tasks.pretraining.data import Corpus, load_corpus
from matfm.tasks.pretraining.evaluation import held_out_evaluation
from matfm.tasks.pretraining.models import new_model
from matfm.tasks.pretraining.objectives import SpanObjective, objective_step
from matfm.tasks.pretraining.rows import Part
from matfm.tasks.pretraining.setting import Setting
from matfm.tasks.pretraining.vocabulary import PretrainingVocabulary, vocabulary_of
from matfm.tasks.readings import readings_to_check
from matfm.tasks.recipes.recipe import load_recipe

TABLE_DIGEST = "table.sha256"
"""In the run directory: SHA-256 of the table that the run began with."""

__all__ = [
    "Corpus",
    "CorpusConfig",
    "ModelConfig",
    "PretrainConfig",
    "TrainConfig",
    "load_corpus",
    "new_model",
    "new_vocabulary",
    "pretraining_step",
    "run",
]


@alone_in_folder
def run(config: PretrainConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Train from scratch and write a run directory; returns the summary.

    Started by torchrun, the processes train together and the first one writes; all must see `out`.
    """
    device = resolve_device(config.device)
    new_vocabulary(config)  # raises, before anything is written, for one that cannot be read
    with process_group(device) as ranks:
        directory = RunDirectory(out)
        if ranks.first:
            directory = RunDirectory.open(out, to_mapping(config), resume, free=frozenset({"data.workers"}))
            for number, corpus_of in enumerate((config.data, *config.data.more)):
                if corpus_of.table:
                    check_same_table(out, Path(corpus_of.table), f"table-{number}.sha256" if number else TABLE_DIGEST)
        ranks.wait()
        if (finished := directory.finished_summary()) is not None:
            return finished
        # The first process builds the recipe and computes targets, and the others read what it wrote.
        corpus = ranks.in_order(lambda: load_corpus(config, out))
        if ranks.first:
            data.write_rejects(out / "rejects.csv", corpus.rejects)
        vocabulary = new_vocabulary(config, corpus.conditions)
        model, result = train(config, corpus, vocabulary, out, device, resume)
        if ranks.first:
            _write_results(config, corpus, vocabulary, model, result, directory)
        ranks.wait()
    return directory.summary()


def check_same_table(out: Path, table: Path, name: str = TABLE_DIGEST) -> None:
    """Remember, in a file of that name, the table that a run began with.

    Raises:
        MatfmError: the run began with another one: rows would be held out and drawn otherwise.
    """
    if not table.is_file():
        return  # reading it says so
    begun, digest = out / name, sha256_of(table)
    if not begun.is_file():
        write_text(begun, digest + "\n")
    elif begun.read_text("utf-8").strip() != digest:
        raise MatfmError(f"{table} is not the table that {out} began with; restore it, or start anew in another --out")


def train(
    config: PretrainConfig,
    corpus: Corpus,
    vocabulary: PretrainingVocabulary,
    out: Path,
    device: torch.device,
    resume: bool,
) -> tuple[Any, dict[str, Any]]:
    """The trained model, and what `fit` says of it."""
    model = new_model(config, corpus, vocabulary)
    batches = corpus.train.batches(config.train.tokens_per_batch, config.seed, config.length_pool)
    per_epoch = batches.batches_per_epoch
    steps = config.train.steps or math.ceil(config.train.epochs * per_epoch / config.train.accumulate)
    loop = LoopConfig(**config.train.options(), steps=steps, evaluate_every=math.ceil(steps / config.train.evaluations))
    setting = setting_of(config, vocabulary, corpus.train)
    result = fit(
        model,
        objective_step(config.objectives, setting),
        batches,
        config.optimizer,
        loop,
        out,
        seed=config.seed,
        device=device,
        evaluate=held_out_evaluation(config, corpus.held_out, setting, device),
        resume=resume,
        label="pretrain",
    )
    return model, result


def new_vocabulary(config: PretrainConfig, conditions: tuple[PropertyBins, ...] = ()) -> PretrainingVocabulary:
    """The vocabulary, with the sentinels and the tokens of conditions (of the corpus) that the objectives need."""
    sentinels = sum(term.sentinels for term in config.objectives if isinstance(term, SpanObjective))
    return vocabulary_of(config, sentinels, conditions)


def setting_of(config: PretrainConfig, vocabulary: PretrainingVocabulary, part: Part) -> Setting:
    """What the terms know beside the batch."""
    return Setting(
        vocabulary,
        config.masking,
        part,
        len(config.data.targets),
        config.train.label_smoothing,
        frozenset(objective.name for objective in config.objectives),
        next((objective.rows for objective in config.objectives if isinstance(objective, AmountsObjective)), 0.0),
    )


def pretraining_step(config: PretrainConfig, part: Part | None = None) -> StepFunction:
    """The step function of a configuration, for batches of these rows (None: no term looks anything up)."""
    rows = Part(RaggedTokens.from_sequences([])) if part is None else part
    return objective_step(config.objectives, setting_of(config, new_vocabulary(config), rows))


def _write_results(
    config: PretrainConfig,
    corpus: Corpus,
    vocabulary: PretrainingVocabulary,
    model: Any,
    result: dict[str, Any],
    directory: RunDirectory,
) -> None:
    out = directory.path
    save_model(model.cpu(), out, to_mapping(config))
    save_tokenizer(vocabulary.tokenizer, out)
    rates = [record["tokens_per_s"] for record in read_log(out / LOG_FILE) if "tokens_per_s" in record]
    summary = {
        "task": "pretrain",
        "name": config.name,
        "family": config.model.family,
        "objectives": [objective.name for objective in config.objectives],
        "rows_in": corpus.rows_in,
        "rows_used": corpus.rows_used,
        "rows_rejected": corpus.rows_in - corpus.rows_used,
        "labels_rejected": len(corpus.rejects) - (corpus.rows_in - corpus.rows_used),
        **readings_to_check(corpus.warnings),
        "rows_held_out": corpus.rows_held_out,
        **corpus.notes,
        "parameters": sum(p.numel() for p in model.parameters()),
        **result,
        "tokens_per_s": round(median(rates)) if rates else 0,
        **({"conditions": {bins.name: bins.texts for bins in corpus.conditions}} if corpus.conditions else {}),
        "units": {known.name: known.unit for known in corpus.properties[: len(config.data.targets)]},
    }
    directory.write_metrics(result["valid"])
    plots.draw_curves(out)
    plots.draw_diagnostics(out)
    recipe = load_recipe(config.data.recipe) if config.data.recipe else None
    cards.write_pretraining_card(out, config, summary, recipe)
    directory.finish(summary)
    remove_checkpoints(out)
