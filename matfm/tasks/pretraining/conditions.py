"""The objective `causal`, alone or given the bins of properties: control tokens before a text.

After the control codes of CTRL (Keskar et al., arXiv:1909.05858). Each property's token is left out at random, so that
texts can be asked for with any of the properties, and with none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from matfm.chem.units import property_named
from matfm.core.batching import TokenBatch
from matfm.core.inserted_tokens import NOTHING, insert_after_first
from matfm.core.property_bins import PropertyBins
from matfm.core.step import StepFunction, StepOutput
from matfm.core.steps import CausalModel, causal_step
from matfm.errors import MatfmError
from matfm.tasks.pretraining.setting import Objective, Setting
from matfm.tasks.tables import column_metadata

if TYPE_CHECKING:
    from matfm.tasks.pretraining.config import PretrainConfig

# B sequences, C conditions, K target columns, R rows


@dataclass(frozen=True)
class CausalObjective(Objective):
    """Every token from those before it (Radford et al. 2018)."""

    condition: tuple[str, ...] = ()
    """Columns of data.targets whose bins `matfm generate --condition` can ask for."""
    bins: int = 10
    """Parts of about equally many training rows that the values of a property are cut into, beside values so frequent
    that they have a bin of their own."""
    drop: float = 0.3
    """Chance of each property's token to be left out of a row in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.condition)) < len(self.condition):
            raise MatfmError("objective 'causal': condition must name each column once")
        if self.bins < 2:
            raise MatfmError(f"objective 'causal': bins is {self.bins}; at least 2 tell values apart")
        if not 0 <= self.drop < 1:
            raise MatfmError(f"objective 'causal': drop is {self.drop}; it is a share in [0, 1)")

    def evaluated(self) -> CausalObjective:
        """As held-out rows are judged: given all that is known of them."""
        return replace(self, drop=0.0)

    def unconditional(self) -> CausalObjective:
        """The same without conditions."""
        return replace(self, condition=())


def check_conditions(objectives: Sequence[Objective], targets: Sequence[str]) -> bool:
    """Whether texts are conditioned on the target columns.

    Raises:
        MatfmError: on some of them only, or on others.
    """
    conditions = next((o.condition for o in objectives if isinstance(o, CausalObjective)), ())
    for name in conditions:
        if name not in targets:
            raise MatfmError(f"objective 'causal': condition has {name!r}; add that column to data.targets")
    for name in targets if conditions else ():
        if name not in conditions:
            raise MatfmError(f"data.targets has {name!r}, which is no condition of 'causal'; leave it out, or add it")
    return bool(conditions)


def fit_conditions(config: PretrainConfig, targets_RK: np.ndarray, path: str) -> tuple[PropertyBins, ...]:
    """Bins of the conditioned columns in the order of `data.targets`, chosen on the training rows; none without them.

    Args:
        config: of the run.
        targets_RK: of the training rows.
        path: of the table, which says units and properties.
    """
    objective = next((o for o in config.objectives if isinstance(o, CausalObjective)), None)
    if objective is None or not objective.condition:
        return ()
    fitted = []
    for column, name in enumerate(config.data.targets):
        metadata = column_metadata(path, name)
        known = property_named(metadata.get("property", name), metadata.get("unit"))
        fitted.append(PropertyBins.fit(name, known.unit, targets_RK[:, column], objective.bins, known.name))
    return tuple(fitted)


def conditional_step(objective: CausalObjective, setting: Setting) -> StepFunction:
    """Per predicted token of the texts, of which the tokens of conditions are none.

    Raises:
        ValueError: the vocabulary was made without the bins.
    """
    if not objective.condition:
        return causal_step(setting.label_smoothing)
    fitted = setting.vocabulary.conditions
    if {bins.name for bins in fitted} != set(objective.condition):
        raise ValueError(f"the vocabulary has tokens of {[bins.name for bins in fitted]}, not {objective.condition}")
    ids = setting.vocabulary.tokenizer.get_vocab()
    # The last entry is that of `OUTSIDE`, -1.
    ids_of = [torch.tensor([*(ids[token] for token in bins.tokens), NOTHING]) for bins in fitted]

    def step(model: CausalModel, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        values_BK = batch.targets_BK.cpu().numpy()
        numbers = [torch.from_numpy(bins.of(values_BK[:, column])) for column, bins in enumerate(fitted)]
        ids_BC = torch.stack([known[number] for known, number in zip(ids_of, numbers, strict=True)], dim=1)
        dropped_BC = torch.rand(ids_BC.shape, generator=rng) < objective.drop
        given = insert_after_first(batch.ids_N, batch.layout, ids_BC.masked_fill(dropped_BC, NOTHING))
        logits_MV = model.logits_packed(given.ids_M, given.layout)
        return StepOutput(*given.causal_loss(logits_MV, setting.label_smoothing))

    return step
