"""Keys and values of rows that are at different places of their sequences, in memory that is taken once."""

from __future__ import annotations

import torch
from torch import Tensor

# L layers, B rows, S slots, H heads, d width of a head, D = H·d


class SlotCache:
    """Slot s of a row holds its token s. Rows advance and restart one by one; nothing moves.

    Args:
        layers: L.
        rows: B.
        slots: most tokens of a row.
        heads: H.
        head_width: d.
        like: gives device and type.
    """

    def __init__(self, layers: int, rows: int, slots: int, heads: int, head_width: int, like: Tensor) -> None:
        shape = (layers, rows, slots, heads, head_width)
        self._keys = torch.zeros(shape, device=like.device, dtype=like.dtype)
        self._values = torch.zeros_like(self._keys)
        self.seen = slots
        """Slots that attention reads."""
        self._flat_B = torch.zeros(rows, dtype=torch.long, device=like.device)

    def begin(self, layer: int, keys: Tensor, values: Tensor, rows: Tensor | None = None) -> None:
        """First P tokens, (B, H, P, d) or (1, H, P, d) for all alike, of the given rows; None for every row."""
        chosen, length = slice(None) if rows is None else rows, keys.shape[2]
        self._keys[layer, chosen, :length] = keys.transpose(1, 2)
        self._values[layer, chosen, :length] = values.transpose(1, 2)

    def place(self, slots_B: Tensor, longest: int) -> None:
        """Where the next `update` of every layer writes; `longest` is the largest of these slots."""
        rows_B = torch.arange(len(slots_B), device=slots_B.device)
        self._flat_B = rows_B * self._keys.shape[2] + slots_B
        self.seen = longest + 1

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write one token (B, H, 1, d) of every row; returns what attention reads, (B, H, S, d)."""
        both = []
        for known, new in ((self._keys[layer], keys), (self._values[layer], values)):
            known.flatten(0, 1).index_copy_(0, self._flat_B, new[:, :, 0])
            both.append(known[:, : self.seen].transpose(1, 2))
        return both[0], both[1]

    def keep(self, rows: Tensor) -> None:
        """Only these rows, in that order."""
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]


class PromptCache:
    """Remembers keys and values (B, H, P, d) of each layer of one forward pass."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Layers come in their order."""
        assert layer == len(self.layers)
        self.layers.append((keys, values))
        return keys, values
