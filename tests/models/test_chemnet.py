"""ChemNet and the Fréchet distance against their definitions; the wheel of weights is made here, with random ones."""

import io
import zipfile

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from matfm.errors import RunError
from matfm.models.chemnet import _SHAPES, ChemNet, chemnet_activations, chemnet_characters, frechet_distance


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """As the package `fcd` is laid out: a zip in a zip, tensors as plain float32 numbers."""
    generator, inner = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as stored:
        stored.writestr("ChemNet/data.pkl", b"")
        for number, shape in enumerate(_SHAPES.values()):
            stored.writestr(f"ChemNet/data/{number}", generator.normal(0, 0.1, shape).astype("<f4").tobytes())
    path = tmp_path_factory.mktemp("wheel") / "fcd.whl"
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("fcd/ChemNet_v0.13_pretrained.pt", inner.getvalue())
    return path


def test_characters_are_one_hot_up_to_the_end():
    characters = chemnet_characters(["CClBr", "C[Si]C.Cl", "C" * 400])
    assert characters.shape == (3, 350, 35)
    kinds = characters.argmax(dim=2)
    assert kinds[0, :4].tolist() == [0, 5, 8, 34]
    assert kinds[1, :6].tolist() == [0, 26, 11, 27, 0, 34]
    torch.testing.assert_close(characters.sum(dim=(1, 2)) * 35, torch.tensor([4.0, 6.0, 350.0]))
    assert kinds[2, 348:].tolist() == [0, 34]


def test_the_network_by_its_definition(wheel):
    """Padding, strides, activations and directions as the imported network has them, written out in NumPy."""
    model = ChemNet.from_wheel(wheel)
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    hidden = chemnet_characters(["CCO"])[0, :30].double().numpy()

    def selu(values):
        return 1.0507009873554805 * np.where(values > 0, values, 1.6732632423543772 * (np.exp(values) - 1))

    def convolved(signal_TC, weight_OCK):
        zeros = 2 if len(signal_TC) % 2 == 0 else 3
        padded = np.pad(signal_TC, ((zeros // 2, zeros - zeros // 2), (0, 0)))
        steps = range(0, len(padded) - 3, 2)
        return selu(np.array([np.einsum("kc,ock->o", padded[t : t + 4], weight_OCK) for t in steps]))

    def lstm(signal_TC, part, width):
        state, cell, outputs = np.zeros(width), np.zeros(width), []
        for value in signal_TC:
            gates = sum(
                weights[f"{part}.weight_{kind}_l0"] @ vector + weights[f"{part}.bias_{kind}_l0"]
                for kind, vector in (("ih", value), ("hh", state))
            )
            read, forget, new, out = np.split(gates, 4)
            cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-read))
            state = np.tanh(cell) / (1 + np.exp(-out))
            outputs.append(state)
        return np.array(outputs)

    signal = convolved(convolved(hidden, weights["first.weight"]), weights["second.weight"])
    expected = lstm(lstm(signal[::-1], "narrow", 128)[::-1], "wide", 512)[-1]
    with torch.no_grad():
        found = model.double()(torch.from_numpy(hidden)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_activations_do_not_depend_on_the_batch(wheel):
    model, smiles = ChemNet.from_wheel(wheel), ["CCO", "c1ccccc1", "CC(=O)N", "C"]
    whole = chemnet_activations(model, smiles, torch.device("cpu"))
    assert whole.shape == (4, 512)
    split = chemnet_activations(model, smiles, torch.device("cpu"), batch=3)
    np.testing.assert_allclose(whole, split, rtol=1e-4, atol=1e-6)
    assert chemnet_activations(model, [], torch.device("cpu")).shape == (0, 512)


def test_a_wheel_without_weights_is_named(tmp_path):
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("x", "y")
    with pytest.raises(RunError, match="does not hold the weights of ChemNet"):
        ChemNet.from_wheel(path)


@pytest.mark.parametrize("rows", [40, 5])
def test_frechet_distance_is_its_formula(rows):
    generator = np.random.default_rng(1)
    samples = [generator.normal(shift, scale, (rows, 8)) for shift, scale in ((0, 1), (0.3, 1.5))]
    (mean, covariance), (other_mean, other_covariance) = [(s.mean(axis=0), np.cov(s.T)) for s in samples]
    root = np.real(sqrtm(covariance @ other_covariance))
    expected = np.square(mean - other_mean).sum() + np.trace(covariance + other_covariance - 2 * root)
    found = frechet_distance(mean, covariance, other_mean, other_covariance)
    assert found == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-6)
