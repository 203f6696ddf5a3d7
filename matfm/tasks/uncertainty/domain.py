"""Applicability domain: which rows are like those that a predictor was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from matfm.core.batching import RaggedTokens
from matfm.core.files import atomic_path
from matfm.errors import MatfmError
from matfm.tasks.examples import Examples

# R rows, M stored training rows, D width, C conditions, V vocabulary

DOMAIN_FILE = "domain.safetensors"
FORMAT = "1"
LARGEST = 4096
"""Training rows whose vectors are stored at most: 2 MiB at a width of 256."""
NEIGHBOURS = 5
"""Nearest stored rows that a distance is the mean of."""
PERCENTILE = 95.0
"""Of the distances of held-out rows: what is farther is outside."""
_FEWEST_HELD_OUT = 20
_BLOCK = 2048


@dataclass(frozen=True)
class Domain:
    """What the training rows were like.

    A row's distance is the mean Euclidean distance from the vector that the head reads to its nearest training rows
    (Janet et al., Chem. Sci. 10, 7913 (2019)).
    """

    vectors_MD: np.ndarray
    """Of the stored training rows, float16."""
    seen_V: np.ndarray
    """Which tokens are in the training rows, bool; the unknown token never counts as seen."""
    threshold: float
    """Distance beyond which a row is outside."""
    lowest_C: np.ndarray
    """Smallest value of each condition in the training rows."""
    highest_C: np.ndarray

    def distances(self, pooled_RD: np.ndarray, skip_nearest: bool = False) -> np.ndarray:
        """Distance of each row (R,), float64; `skip_nearest` is for rows that are stored themselves."""
        stored = torch.from_numpy(self.vectors_MD.astype(np.float32))
        squares_M = stored.square().sum(dim=1)
        skipped = int(skip_nearest)
        count = min(NEIGHBOURS + skipped, len(stored))
        found = []
        for block in torch.from_numpy(np.ascontiguousarray(pooled_RD, np.float32)).split(_BLOCK):
            # |x|² is left out: it does not change which are nearest.
            nearest = (squares_M - 2 * block @ stored.T).topk(count, dim=1, largest=False).indices
            # The difference itself, as the expanded square loses its digits where two rows nearly agree.
            exact = (block[:, None] - stored[nearest]).double().norm(dim=2).sort(dim=1).values
            found.append(exact[:, skipped:].mean(dim=1) if count > skipped else exact[:, 0])
        return torch.cat(found).numpy() if found else np.zeros(0)

    def reasons(self, examples: Examples, distance_R: np.ndarray, tokenizer: Any, conditions: tuple[str, ...]) -> Any:
        """Why each row is outside, text of shape (R,); empty for rows inside.

        Args:
            examples: the rows, each in one written form.
            distance_R: as `distances` says.
            tokenizer: names the tokens.
            conditions: names of the conditions.
        """
        reason_R = np.where(distance_R > self.threshold, "unlike the training rows", "").astype(object)
        if examples.conditions_SC is not None:
            outside_RC = (examples.conditions_SC < self.lowest_C) | (examples.conditions_SC > self.highest_C)
            for row, c in np.argwhere(outside_RC)[::-1]:
                span = f"{self.lowest_C[c]:g} to {self.highest_C[c]:g}"
                reason_R[row] = f"{conditions[c]} is outside the {span} of the training rows"
        tokens = examples.tokens
        for row in self._rows_with_unseen(tokens).tolist():
            ids = tokens.ids_N[tokens.offsets[row] : tokens.offsets[row + 1]].astype(int)
            names = tokenizer.convert_ids_to_tokens([i for i in dict.fromkeys(ids.tolist()) if not self._seen(i)])
            reason_R[row] = f"not in any training row: {', '.join(names)}"
        return reason_R

    def save(self, folder: Path) -> None:
        """Write `domain.safetensors`."""
        tensors = {
            "vectors": self.vectors_MD,
            "seen": self.seen_V.astype(np.uint8),
            "threshold": np.array([self.threshold]),
            "lowest": self.lowest_C,
            "highest": self.highest_C,
        }
        with atomic_path(folder / DOMAIN_FILE) as temporary:
            save_file(tensors, temporary, {"format": FORMAT})

    def _seen(self, token: int) -> bool:
        return token < len(self.seen_V) and bool(self.seen_V[token])

    def _rows_with_unseen(self, tokens: RaggedTokens) -> np.ndarray:
        known = np.append(self.seen_V, False)
        seen_N = known[np.minimum(tokens.ids_N.astype(int), len(self.seen_V))]
        return (
            np.flatnonzero(~np.logical_and.reduceat(seen_N, tokens.offsets[:-1])) if len(seen_N) else np.zeros(0, int)
        )


def domain_of(train: Examples, train_RD: np.ndarray, held_out_RD: np.ndarray, tokenizer: Any, seed: int) -> Domain:
    """The domain of training rows, each in one written form, with the threshold that held-out rows give.

    The threshold is a percentile of the distances of the held-out rows; where these are too few to tell, of the stored
    training rows among each other.

    Args:
        train: training rows.
        train_RD: what the head reads of them.
        held_out_RD: the same of rows that were not trained on.
        tokenizer: says how many tokens there are, and which one is unknown.
        seed: of the choice of rows that are stored, where there are too many.
    """
    rows = np.arange(len(train_RD))
    if len(rows) > LARGEST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, LARGEST, replace=False))
    seen_V = np.zeros(len(tokenizer), dtype=bool)
    seen_V[np.unique(train.tokens.ids_N)] = True
    if tokenizer.unk_token_id is not None:
        seen_V[tokenizer.unk_token_id] = False
    conditions = np.zeros((1, 0), np.float32) if train.conditions_SC is None else train.conditions_SC
    ranges = conditions.min(axis=0), conditions.max(axis=0)
    vectors_MD = train_RD[rows].astype(np.float16)
    domain = Domain(vectors_MD, seen_V, np.inf, *ranges)
    if len(held_out_RD) >= _FEWEST_HELD_OUT:
        distance_R = domain.distances(held_out_RD)
    else:
        distance_R = domain.distances(vectors_MD, skip_nearest=True)
    return Domain(vectors_MD, seen_V, float(np.percentile(distance_R, PERCENTILE)), *ranges)


def load_domain(folder: Path) -> Domain | None:
    """The domain of a run; None where it has none.

    Raises:
        MatfmError: the file is damaged, or of another format.
    """
    path = folder / DOMAIN_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            if (found := (file.metadata() or {}).get("format")) != FORMAT:
                raise MatfmError(f"{path} has format {found!r}; this version reads format {FORMAT!r}: fine-tune again")
            tensors = {name: file.get_tensor(name) for name in ("vectors", "seen", "threshold", "lowest", "highest")}
    except SafetensorError as error:
        raise MatfmError(f"{path} is damaged ({error}); fine-tune again") from error
    return Domain(
        tensors["vectors"],
        tensors["seen"].astype(bool),
        float(tensors["threshold"][0]),
        tensors["lowest"],
        tensors["highest"],
    )
