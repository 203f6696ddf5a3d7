"""The objective `contrastive`: where the second view of a sequence comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from matfm.chem.augment import jitter_amounts
from matfm.chem.masking import MASK
from matfm.core.batching import TokenBatch
from matfm.core.denoising import DenoisingConfig
from matfm.core.objectives import info_nce_loss
from matfm.core.step import StepOutput
from matfm.core.steps import noisy_view
from matfm.errors import MatfmError
from matfm.tasks.pretraining.setting import Objective, Setting, SharedBatch, TermLoss

# B sequences, D width

VIEWS = ("dropout", "noise", "jitter", "enumeration")


@dataclass(frozen=True)
class ContrastiveObjective(Objective):
    """Two views of a sequence close, those of others far (InfoNCE, Oord et al. 2018)."""

    temperature: float = 0.1
    """Divides the cosines."""
    view: str = "dropout"
    """What tells the second view from the first: dropout (SimCSE; needs model.dropout), noise (tokens masked, left out,
    infilled), jitter (amounts of a formula) or enumeration (another SMILES; needs data.enumerations)."""
    scale: float = 0.1
    """Relative standard deviation of the jitter."""
    noise: DenoisingConfig = field(
        default_factory=lambda: DenoisingConfig(permuted=False, infilled=0.0, masked=0.15, deleted=0.1)
    )
    """The noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise MatfmError(f"objective 'contrastive': temperature is {self.temperature}; it must be positive")
        if self.view not in VIEWS:
            raise MatfmError(f"objective 'contrastive': view is {self.view!r}; choose one of {', '.join(VIEWS)}")


def contrastive(objective: Objective, setting: Setting) -> TermLoss:
    """Per sequence. The first view is what the other terms see, masks included."""
    assert isinstance(objective, ContrastiveObjective)
    second = _SECOND_VIEWS[objective.view](objective, setting)

    def loss(shared: SharedBatch) -> StepOutput:
        view, place_B = second(shared)
        embedded_BD = shared.model.matbert.embed_packed(view.ids_N, view.amounts_N, view.layout)
        right_BD = embedded_BD if place_B is None else embedded_BD[place_B]
        groups_R, rows_B = setting.part.group_R, setting.part.rows_of(shared.batch)
        group_B = None if groups_R is None else torch.from_numpy(groups_R[rows_B]).to(right_BD.device)
        total, weight = info_nce_loss(shared.pooled_BD, right_BD, objective.temperature, group_B=group_B)
        return StepOutput(total, weight, {"contrastive": (total, weight)})

    return loss


SecondView = Callable[[SharedBatch], tuple[TokenBatch, Tensor | None]]
"""The second view, and where in it each sequence of the batch is (None: at its own place)."""


def _dropout_view(_: ContrastiveObjective, __: Setting) -> SecondView:
    return lambda shared: (replace(shared.batch, ids_N=shared.masked.ids_N), None)


def _noise_view(objective: ContrastiveObjective, setting: Setting) -> SecondView:
    vocabulary = setting.vocabulary
    view = noisy_view(vocabulary.ordinary_V, MASK, vocabulary.separator, objective.noise)

    def second(shared: SharedBatch) -> tuple[TokenBatch, None]:
        return view(shared.batch, shared.generator), None

    return second


def _jitter_view(objective: ContrastiveObjective, _: Setting) -> SecondView:
    def second(shared: SharedBatch) -> tuple[TokenBatch, None]:
        batch = shared.batch
        seed = int(torch.randint(2**63 - 1, (1,), generator=shared.generator))
        offsets = np.concatenate([[0], np.cumsum(batch.layout.lengths())])
        amounts_N = jitter_amounts(batch.amounts_N.cpu().numpy(), offsets, objective.scale, np.random.default_rng(seed))
        return replace(batch, amounts_N=torch.from_numpy(amounts_N).to(batch.ids_N.device)), None

    return second


def _enumeration_view(_: ContrastiveObjective, setting: Setting) -> SecondView:
    return lambda shared: setting.part.other_way(shared.batch, shared.generator)


_SECOND_VIEWS: dict[str, Callable[[ContrastiveObjective, Setting], SecondView]] = {
    "dropout": _dropout_view,
    "noise": _noise_view,
    "jitter": _jitter_view,
    "enumeration": _enumeration_view,
}
