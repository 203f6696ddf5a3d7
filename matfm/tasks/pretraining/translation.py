"""The objective `translation`: the same material in another notation, or what is known of it in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from matfm.chem.joint_tokenizer import TASKS
from matfm.core.batching import TokenBatch
from matfm.core.objectives import causal_lm_loss
from matfm.core.step import StepOutput
from matfm.errors import MatfmError
from matfm.models.translating import translate_ids
from matfm.tasks.pretraining.pairs import TASK_NAMES, PairWriter
from matfm.tasks.pretraining.rows import Part
from matfm.tasks.pretraining.setting import Objective, Setting, SharedBatch, TermLoss


@dataclass(frozen=True)
class TranslationObjective(Objective):
    """Pairs of the rows, one for each row and step, of a task drawn at random (see `matfm.tasks.pretraining.pairs`)."""

    tasks: tuple[str, ...] = TASK_NAMES
    """Of these, those that the data have: to_selfies, to_smiles (molecules), to_text, to_composition, answer."""
    sample: int = 200
    """Held-out rows that each evaluation translates with the model, for `TASK_exact`; 0 is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for task in self.tasks:
            if task not in TASK_NAMES:
                raise MatfmError(f"objective 'translation': there is no task {task!r}; take {', '.join(TASK_NAMES)}")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise MatfmError("objective 'translation': tasks must name at least one task, and each once")
        if self.sample < 0:
            raise MatfmError(f"objective 'translation': sample is {self.sample}; it must not be negative")


def translation(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token. A batch of which no row has a pair costs nothing."""
    assert isinstance(objective, TranslationObjective)
    writer, ways = pair_writer(objective, setting), setting.part.ways

    def loss(shared: SharedBatch) -> StepOutput:
        batch, model = shared.batch, shared.model
        device = batch.ids_N.device
        made = writer.batch(own_sequences(batch), batch.rows_B.cpu().numpy(), ways, shared.generator)
        if made is None:
            nothing = model.lm_head.weight.sum() * 0.0
            return StepOutput(nothing, nothing.detach())
        targets = made.target_ids_M.to(device)
        logits_MV = model.logits_packed(made.source_ids_N.to(device), made.source_layout, targets, made.target_layout)
        sizes = [layout.tokens for _, layout in made.by_task]
        losses = [
            causal_lm_loss(logits, ids, layout, setting.label_smoothing)
            for logits, ids, (_, layout) in zip(logits_MV.split(sizes), targets.split(sizes), made.by_task, strict=True)
        ]
        total = torch.stack([each for each, _ in losses]).sum()
        weight = torch.stack([each for _, each in losses]).sum()
        by_task = {f"{task}_nats": found for (task, _), found in zip(made.by_task, losses, strict=True)}
        return StepOutput(total, weight, {"translation": (total, weight), **by_task})

    return loss


def pair_writer(objective: TranslationObjective, setting: Setting) -> PairWriter:
    """What writes the rows of a part as pairs."""
    assert setting.part.pairs is not None
    wanted = tuple(task for task in TASKS if task.strip("<>") in objective.tasks)
    return PairWriter(setting.part.pairs, setting.vocabulary.tokenizer.get_vocab(), wanted)


def exact_matches(
    model: Any, held_out: Part, objective: TranslationObjective, setting: Setting, seed: int, device: torch.device
) -> dict[str, float]:
    """For each task the share of held-out rows whose greedy translation is the target, token by token.

    The rows are `objective.sample` ones spread evenly over the part, the same at every call.
    """
    writer, generator = pair_writer(objective, setting), np.random.default_rng(seed)
    chosen = np.unique(np.linspace(0, len(held_out) - 1, min(objective.sample, len(held_out))).astype(int))
    pairs: dict[str, list[tuple[list[int], list[int]]]] = {}
    for row in chosen.tolist():
        sequence = row * held_out.ways
        own = held_out.tokens.ids_N[held_out.tokens.offsets[row] : held_out.tokens.offsets[row + 1]]
        for task in writer.tasks_of(sequence, row):
            pairs.setdefault(task, []).append(writer.pair(task, own, sequence, row, generator))
    shares = {}
    for task, examples in pairs.items():
        made = translate_ids(model, [source for source, _ in examples], device)
        right = [found.ids == target[1:-1] for found, (_, target) in zip(made, examples, strict=True)]
        shares[f"{task.strip('<>')}_exact"] = float(np.mean(right))
    return shares


def own_sequences(batch: TokenBatch) -> list[np.ndarray]:
    """Ids of each sequence of a batch."""
    return np.split(batch.ids_N.cpu().numpy(), np.cumsum(batch.layout.lengths())[:-1])
