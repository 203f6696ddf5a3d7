"""ChemNet, whose activations the Fréchet ChemNet distance (FCD) compares.

Preuer et al., J. Chem. Inf. Model. 58, 1736 (2018).

The weights are not ours and are not shipped: they come from the package `fcd`, whose file holds each tensor as plain
float32 numbers, so that nothing has to be unpickled.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.errors import RunError

# B molecules, T = 350 characters, C channels, D = 512 activations

WIDTH = 512
_LENGTH = 350
_CHARACTERS = "C N O H F Cl P B Br S I Si # ( ) + - 1 2 3 4 5 6 7 8 = [ ] @ c n o s X .".split()
_INDEX = {character: index for index, character in enumerate(_CHARACTERS)}
_UNKNOWN, _END = _INDEX["X"], _INDEX["."]
_SPLIT = re.compile(r".[ril]|.")
"""As `fcd_torch` reads: r, i and l are second letters."""
_MEMBER = "fcd/ChemNet_v0.13_pretrained.pt"
_SHAPES = {
    "first.weight": (4, 35, 32),
    "second.weight": (4, 32, 32),
    "narrow.weight_ih_l0": (32, 512),
    "narrow.weight_hh_l0": (128, 512),
    "narrow.bias_ih_l0": (512,),
    "narrow.bias_hh_l0": (512,),
    "wide.weight_ih_l0": (128, 2048),
    "wide.weight_hh_l0": (512, 2048),
    "wide.bias_ih_l0": (2048,),
    "wide.bias_hh_l0": (2048,),
}
"""Parameters in the order of the file, which stores them with all axes reversed."""


class ChemNet(nn.Module):
    """Characters of a canonical SMILES to 512 activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(35, 32, 4, stride=2, bias=False)
        self.second = nn.Conv1d(32, 32, 4, stride=2, bias=False)
        self.narrow = nn.LSTM(32, 128, batch_first=True)
        self.wide = nn.LSTM(128, WIDTH, batch_first=True)

    @classmethod
    def from_wheel(cls, wheel: Path) -> ChemNet:
        """Weights from the wheel of `fcd` 1.2.2. Raises RunError if they are not in it."""
        try:
            with zipfile.ZipFile(wheel) as outer, zipfile.ZipFile(io.BytesIO(outer.read(_MEMBER))) as inner:
                folder = inner.namelist()[0].split("/")[0]
                stored = [inner.read(f"{folder}/data/{number}") for number in range(len(_SHAPES))]
        except (KeyError, zipfile.BadZipFile) as error:
            raise RunError(f"{wheel} does not hold the weights of ChemNet ({error}); fetch it again") from error
        model = cls()
        tensors = {}
        for (name, shape), content in zip(_SHAPES.items(), stored, strict=True):
            values = np.frombuffer(content, "<f4").reshape(shape).T
            tensors[name] = torch.from_numpy(values.copy(order="C"))
        model.load_state_dict(tensors)
        return model.eval()

    def forward(self, characters_BTC: Tensor) -> Tensor:
        """One-hot characters divided by their number of kinds, (B, 350, 35), to (B, 512)."""
        hidden = characters_BTC.transpose(1, 2)
        for convolution in (self.first, self.second):
            hidden = F.selu(convolution(_padded(hidden)))
        # Both recurrent layers read what they are given from its end.
        narrow_BTC = self.narrow(hidden.transpose(1, 2).flip(1))[0]
        return self.wide(narrow_BTC.flip(1))[0][:, -1]


def _padded(hidden_BCT: Tensor, kernel: int = 4, stride: int = 2) -> Tensor:
    """Zeros so that a convolution halves the length, as in the imported network."""
    length = hidden_BCT.shape[2]
    zeros = max(kernel - (length % stride or stride), 0)
    left = zeros // stride
    return F.pad(hidden_BCT, (left, left if zeros % stride == 0 else zeros - left))


def chemnet_characters(smiles: Sequence[str]) -> Tensor:
    """Network input of canonical SMILES, (B, 350, 35) float32. A dot or the 350th character ends a text."""
    one_hot = np.zeros((len(smiles), _LENGTH, len(_CHARACTERS)), np.float32)
    for row, text in enumerate(smiles):
        symbols = [_INDEX.get(symbol, _UNKNOWN) for symbol in _SPLIT.findall(text.split(".")[0])][: _LENGTH - 1]
        one_hot[row, np.arange(len(symbols) + 1), [*symbols, _END]] = 1.0 / len(_CHARACTERS)
    return torch.from_numpy(one_hot)


def chemnet_activations(model: ChemNet, smiles: Sequence[str], device: torch.device, batch: int = 256) -> np.ndarray:
    """Activations (B, 512), float32, of canonical SMILES."""
    model.to(device)
    parts = [np.zeros((0, WIDTH), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(smiles), batch):
            characters = chemnet_characters(smiles[start : start + batch])
            parts.append(model(characters.to(device)).cpu().numpy())
    return np.concatenate(parts)


def frechet_distance(
    mean_D: np.ndarray, covariance_DD: np.ndarray, other_mean_D: np.ndarray, other_covariance_DD: np.ndarray
) -> float:
    """|m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½) of two normal distributions (Dowson and Landau 1982).

    The trace of the root is the sum of the roots of the eigenvalues of C₁^½ C₂ C₁^½, which is symmetric, so that no
    complex numbers arise where covariances are singular.
    """
    values, vectors = np.linalg.eigh(covariance_DD)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ other_covariance_DD @ root)
    trace = np.trace(covariance_DD) + np.trace(other_covariance_DD) - 2 * np.sqrt(shared.clip(min=0)).sum()
    return float(np.square(mean_D - other_mean_D).sum() + trace)
