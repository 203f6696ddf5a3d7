"""MatBERT's encoder as an ONNX graph, for runtimes without Python."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from matfm.errors import MatfmError
from matfm.models.matbert import MatBERTModel

# B sequences, T padded length, D width


def export_onnx(model: MatBERTModel, path: Path) -> None:
    """Write the graph `input_ids`, `attention_mask` (B, T int64), `amounts` (B, T float) to `last_hidden_state`.

    B and T may be any numbers when the graph is run. Amounts are 0 where tokens have none (SMILES, special
    tokens). Hidden states mean nothing at padding.

    Raises:
        MatfmError: the extra `onnx` is not installed.
    """
    ids = torch.full((2, 5), 5)
    example = (ids, torch.ones_like(ids), torch.zeros(ids.shape, dtype=model.dtype))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    names = ("input_ids", "attention_mask", "amounts")
    try:
        torch.onnx.export(
            _Encoder(model).eval(),
            example,
            str(path),
            dynamo=True,
            input_names=list(names),
            output_names=["last_hidden_state"],
            dynamic_shapes=dict.fromkeys(names, sizes),
            external_data=False,
            verbose=False,
        )
    except ModuleNotFoundError as error:
        raise MatfmError(f"ONNX export needs {error.name}; pip install 'matfm[onnx]' installs it") from error


class _Encoder(nn.Module):
    """Tensors in, one tensor out."""

    def __init__(self, model: MatBERTModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, amounts: Tensor) -> Tensor:
        return self.model.encode_padded(self.model.embed_tokens(input_ids), attention_mask, amounts)[-1]
