"""What is trained beside a frozen part: an update of a linear map, a bottleneck behind it, or further tokens.

Updates and bottlenecks begin as nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.errors import MatfmError

# N tokens, D width of the input, E width of the output, r rank, m width of the bottleneck


class LowRank(nn.Module):
    """LoRA: adds (alpha / r) · B A x to a linear map of x (Hu et al. 2021, section 4.1). B begins as zero.

    Args:
        inputs: D.
        outputs: E.
        rank: r.
        alpha: the update's scale at rank 1.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        reduction, expansion = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(expansion.weight)
        # Bare matrices, named as in the paper: as linear maps they would themselves be adapted.
        self.A, self.B = reduction.weight, expansion.weight

    def forward(self, input_ND: Tensor, output_NE: Tensor) -> Tensor:
        """Input and output of the map to the output that takes its place, (N, E)."""
        return output_NE + F.linear(F.linear(input_ND, self.A), self.B) * self.scale

    def update(self) -> Tensor:
        """What the map's matrix grows by, (E, D)."""
        return self.B @ self.A * self.scale


class Bottleneck(nn.Module):
    """Adapter: y + W gelu(V y), behind a map's output y (Houlsby et al. 2019, figure 2). W begins as zero.

    Args:
        width: E.
        bottleneck: m.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        down, up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.down, self.down_bias = down.weight, down.bias
        self.up, self.up_bias = up.weight, up.bias

    def forward(self, input_ND: Tensor, output_NE: Tensor) -> Tensor:  # noqa: ARG002  (called as the others)
        """Input and output of the map to the output that takes its place, (N, E)."""
        inner_Nm = F.gelu(F.linear(output_NE, self.down, self.down_bias))
        return output_NE + F.linear(inner_Nm, self.up, self.up_bias)


class AdaptedLinear(nn.Linear):
    """A linear map with named additions, of which the active one acts. It takes over the map's own weights.

    Args:
        linear: the map.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.added = nn.ModuleDict()
        self.active: str | None = None

    def forward(self, input_ND: Tensor) -> Tensor:
        """(N, D) to (N, E)."""
        output_NE = super().forward(input_ND)
        return output_NE if self.active is None else self.added[self.active](input_ND, output_NE)

    def plain(self) -> nn.Linear:
        """The map alone, with the same weights."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear


class AddedTokens(nn.Module):
    """Embeddings of tokens that the vocabulary does not have.

    Args:
        rows_CD: what they begin as.
    """

    def __init__(self, rows_CD: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows_CD.clone())


class AdaptedEmbedding(nn.Embedding):
    """Embeddings with named further tokens, of which the active ones follow the vocabulary's. It takes over its weight.

    Args:
        embedding: of the vocabulary.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = embedding.padding_idx, None, 2.0
        self.scale_grad_by_freq, self.sparse = False, False
        self.weight = embedding.weight
        self.added = nn.ModuleDict()
        self.active: str | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """(…) to (…, D); ids from the size of the vocabulary on are those of the further tokens."""
        if self.active is None:
            return super().forward(ids)
        rows_CD = self.added[self.active].rows
        assert isinstance(rows_CD, Tensor)
        return F.embedding(ids, torch.cat([self.weight, rows_CD]), self.padding_idx)

    def plain(self) -> nn.Embedding:
        """The vocabulary's embeddings alone, with the same weights."""
        plain = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta")
        plain.weight = self.weight
        return plain


def checked_name(name: str) -> str:
    """A name that additions may have. Raises MatfmError for one that cannot be part of a parameter's name."""
    if not name.replace("-", "_").isidentifier() or hasattr(nn.ModuleDict(), name):
        raise MatfmError(f"the name {name!r} cannot be used; take letters, digits, _ and -, such as gap or log-kvrh")
    return name
