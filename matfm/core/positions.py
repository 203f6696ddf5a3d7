"""Positions as parts: added to the input (learned, sinusoidal), or acting in attention (rotary, relative)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matfm.errors import MatfmError

# N tokens, T queries, S keys, H heads, D width, d width of a head


class LearnedPositions(nn.Module):
    """Adds a learned vector per position (absolute positions of BERT and GPT-2).

    Raises:
        MatfmError: a sequence is longer than the table.
    """

    def __init__(self, longest: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(longest, width)

    def forward(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """(…, D) and whole numbers (…) to (…, D)."""
        longest = self.table.num_embeddings
        # An exported graph cannot look at values; there, the runtime's own lookup refuses such positions.
        if not torch.compiler.is_exporting() and positions.numel() and int(positions.max()) >= longest:
            raise MatfmError(
                f"a sequence has {int(positions.max()) + 1} tokens, but this model knows {longest} positions; "
                "truncate it, or set max_position_embeddings"
            )
        return hidden + self.table(positions)


class SinusoidalPositions(nn.Module):
    """Adds sines (even channels) and cosines (odd channels) of the position (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, base: float = 10_000.0) -> None:
        super().__init__()
        self.base = base

    def forward(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """(…, D) and whole numbers (…) to (…, D)."""
        angles = _angles(positions, hidden.shape[-1], self.base)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        return hidden + waves[..., : hidden.shape[-1]].to(hidden.dtype)


class NoPositions(nn.Module):
    """Adds nothing: tokens form a set, or positions act in attention."""

    def forward(self, hidden: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG002  (called as the others)
        """The hidden states as they are."""
        return hidden


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of given positions, which turn queries and keys."""

    cosine: Tensor
    """(…, T, d), broadcast against (B, H, T, d)."""
    sine: Tensor

    def __call__(self, vectors_BHTd: Tensor) -> Tensor:
        """Channels i and i + d/2 form a pair that is turned by its angle."""
        first, second = vectors_BHTd.chunk(2, dim=-1)
        return vectors_BHTd * self.cosine + torch.cat([-second, first], dim=-1) * self.sine

    def first(self, length: int) -> Rotation:
        """Of the first `length` positions."""
        return Rotation(self.cosine[..., :length, :], self.sine[..., :length, :])


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): scores depend on the distance alone. Half-split pairs, as in Llama.

    Args:
        head_width: d, even.
        base: ratio of the longest to the shortest wavelength, 10,000 in the paper.
    """

    def __init__(self, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_width % 2:
            raise MatfmError(f"rotary positions need heads of even width, not {head_width}")
        self.head_width = head_width
        self.base = base

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """The rotation of positions (…, T)."""
        angles = _angles(positions, self.head_width, self.base)
        angles = torch.cat([angles, angles], dim=-1)
        return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


class RelativeBias(nn.Module):
    """A learned number per head and bucket of distances, added to the scores (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each, the others logarithmically wider ranges up to `farthest`.

    Args:
        heads: H.
        buckets: number of learned numbers per head; of them half are for keys after the query if not `causal`.
        farthest: distance from which on all share a bucket.
        causal: keys after the query are never seen, so every bucket is for keys before it.
    """

    def __init__(self, heads: int, buckets: int = 32, farthest: int = 128, causal: bool = False) -> None:
        super().__init__()
        self.farthest = farthest
        self.causal = causal
        self.table = nn.Embedding(buckets, heads)

    def forward(self, queries_T: Tensor, keys_S: Tensor) -> Tensor:
        """Positions of queries and keys to what is added to the scores, (H, T, S)."""
        return self.table(self.bucket(keys_S[None, :] - queries_T[:, None])).permute(2, 0, 1)

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket of the signed distances key − query."""
        buckets = self.table.num_embeddings
        if self.causal:
            return self._one_sided((-distance).clamp_min(0), buckets)
        half = buckets // 2
        return torch.where(distance > 0, half, 0) + self._one_sided(distance.abs(), half)

    def _one_sided(self, distance: Tensor, buckets: int) -> Tensor:
        exact = buckets // 2
        octave = torch.log(distance.clamp_min(1).float() / exact) / math.log(self.farthest / exact)
        wide = exact + (octave * (buckets - exact)).long()
        return torch.where(distance < exact, distance, wide.clamp_max(buckets - 1))


def _angles(positions: Tensor, width: int, base: float) -> Tensor:
    """Position times angular frequency base^(−2i/width), (…, width/2 rounded up).

    In float32 whatever the model's type: half precision cannot tell neighbouring positions apart.
    """
    steps = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    return positions[..., None].float() * (1.0 / base**steps)
