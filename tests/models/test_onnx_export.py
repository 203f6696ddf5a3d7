"""The exported encoder gives torch's hidden states on batches of other sizes than the example's."""

import pytest
import torch

from matfm import CompositionTokenizer, MatBERTConfig, MatBERTModel, SmilesTokenizer
from matfm.models.onnx_export import export_onnx


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
@pytest.mark.parametrize("positions", ["none", "rotary", "absolute"])
def test_onnx_equals_torch(positions, formulas, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    tokenizer = CompositionTokenizer() if positions == "none" else SmilesTokenizer()
    config = MatBERTConfig.of_size("tiny", vocab_size=len(tokenizer), position_embedding=positions)
    model = MatBERTModel(config).eval()
    export_onnx(model, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    texts = formulas if positions == "none" else ["CCO", "c1ccccc1", "C", "CC(=O)Oc1ccccc1C(=O)O"]
    for batch_texts in (texts, texts[:3]):
        batch = tokenizer(batch_texts, padding=True, return_tensors="pt")
        batch.setdefault("amounts", torch.zeros(batch["input_ids"].shape))
        found = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in batch.items()})[0])
        expected = model(**batch).last_hidden_state
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-4)
