"""The objective `amounts`: how much of each element, from the elements alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matfm.core.packed_index import rows_of_tokens
from matfm.core.step import StepOutput
from matfm.errors import MatfmError
from matfm.tasks.pretraining.setting import Objective, Setting, SharedBatch, TermLoss

# P tokens without their amount, B sequences


@dataclass(frozen=True)
class AmountsObjective(Objective):
    """The atomic fractions of a composition whose amounts are hidden.

    The model gives a distribution over the elements of the row; the loss is its Kullback-Leibler divergence from the
    true fractions, in nats. A row without amounts is no material: it has no other targets.
    """

    rows: float = 0.15
    """Share of the rows whose amounts are hidden; rows with a mask keep theirs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rows < 1:
            raise MatfmError(f"objective 'amounts': rows is {self.rows}; it is a share between 0 and 1")


def amounts(objective: Objective, _: Setting) -> TermLoss:
    """Per row without amounts."""
    assert isinstance(objective, AmountsObjective)

    def loss(shared: SharedBatch) -> StepOutput:
        hidden = shared.hidden_amounts
        logits_P = shared.model.amount_head(shared.hidden_ND[hidden.positions_P])[:, 0]
        row_P = rows_of_tokens(shared.batch.layout).to(logits_P.device)[hidden.positions_P]
        log_p_P = log_softmax_of_rows(logits_P, row_P, shared.batch.layout.sequences)
        true_P = shared.batch.amounts_N[hidden.positions_P]
        total = (true_P * (true_P.log() - log_p_P)).sum()
        weight = hidden.row_B.sum().to(total.dtype)
        wrong = (true_P - log_p_P.detach().exp()).abs().sum()
        count = torch.tensor(float(len(true_P)), device=total.device)
        return StepOutput(total, weight, {"amounts": (total, weight), "amounts_mae": (wrong, count)})

    return loss


def log_softmax_of_rows(logits_P: Tensor, row_P: Tensor, rows: int) -> Tensor:
    """Logarithms of softmax over the entries of each row."""
    largest_B = logits_P.new_full((rows,), -torch.inf).scatter_reduce(0, row_P, logits_P.detach(), "amax")
    shifted_P = logits_P - largest_B[row_P]
    sum_B = shifted_P.new_zeros(rows).index_add(0, row_P, shifted_P.exp())
    return shifted_P - sum_B[row_P].log()
