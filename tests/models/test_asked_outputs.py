"""Hidden states and attention maps come when the call asks for them, or the configuration where the call says nothing."""

import pytest
import torch

from matfm import MatBERTConfig, MatBERTModel, MatGPTConfig, MatGPTModel, MatT5Config, MatT5Model

FAMILIES = {
    "matbert": (MatBERTModel, MatBERTConfig, [""]),
    "matgpt": (MatGPTModel, MatGPTConfig, [""]),
    "matt5": (MatT5Model, MatT5Config, ["encoder_", "decoder_"]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_call_decides_then_the_configuration(family):
    torch.manual_seed(0)
    cls, config, parts = FAMILIES[family]
    model = cls(config.of_size("tiny", vocab_size=30, attn_implementation="eager")).eval()
    batch = {"input_ids": torch.tensor([[2, 7, 8, 3]])}
    if family == "matt5":
        batch["decoder_input_ids"] = torch.tensor([[0, 9]])
    wanted = {"output_hidden_states": True, "output_attentions": True}
    plain, asked = model(**batch), model(**batch, **wanted)
    for name in wanted:
        setattr(model.config, name, True)
    by_config, refused = model(**batch), model(**batch, output_hidden_states=False, output_attentions=False)
    for part in (f"{part}{name}" for part in parts for name in ("hidden_states", "attentions")):
        assert part not in plain
        assert part not in refused
        assert len(asked[part]) == 2 + ("states" in part)
        for one, other in zip(asked[part], by_config[part], strict=True):
            assert torch.equal(one, other)


def test_a_row_of_padding_alone_leaves_the_maps_of_matt5_finite():
    torch.manual_seed(0)
    model = MatT5Model(MatT5Config.of_size("tiny", vocab_size=30)).eval()
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    output = model.encoder(torch.tensor([[2, 7, 3], [0, 0, 0]]), mask, output_attentions=True)
    assert output.last_hidden_state.isfinite().all()
    assert all(weights.isfinite().all() for weights in output.attentions)
    assert not any(weights[1].any() for weights in output.attentions)
