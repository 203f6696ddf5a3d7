"""The Hugging Face tokenizer of formulas."""

import torch
from transformers import AutoTokenizer, DataCollatorWithPadding

from matfm import CompositionTokenizer, MatBERTConfig
from matfm.chem.composition_tokenizer import CLS, VOCABULARY, encode_fractions


def test_vocabulary_is_the_periodic_table_and_five_special_tokens():
    tokenizer = CompositionTokenizer()
    assert len(tokenizer) == tokenizer.vocab_size == 123
    assert tokenizer.get_vocab()["Og"] == 122
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_call_gives_ids_mask_and_amounts_padded_alike(formulas):
    batch = CompositionTokenizer()(formulas, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == batch["amounts"].shape == batch["attention_mask"].shape
    assert ((batch["amounts"] > 0) == ((batch["attention_mask"] == 1) & (batch["input_ids"] != CLS))).all()
    for row, formula in enumerate(formulas):
        ids, amounts = encode_fractions(formula)
        length = len(ids)
        assert batch["input_ids"][row, :length].tolist() == ids
        torch.testing.assert_close(batch["amounts"][row, :length], torch.tensor(amounts))


def test_left_padding_moves_amounts_too():
    tokenizer = CompositionTokenizer(padding_side="left")
    batch = tokenizer(["Fe", "Fe2O3"], padding=True)
    assert batch["input_ids"][0] == [0, CLS, VOCABULARY["Fe"]]
    assert batch["amounts"][0] == [0.0, 0.0, 1.0]


def test_saved_and_loaded_through_auto_tokenizer(tmp_path, formulas):
    MatBERTConfig().save_pretrained(tmp_path)
    CompositionTokenizer().save_pretrained(str(tmp_path))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, CompositionTokenizer)
    assert loaded(formulas).data == CompositionTokenizer()(formulas).data
    assert loaded.decode(loaded("Fe2O3")["input_ids"], skip_special_tokens=True) == "FeO"


def test_collator_of_hugging_face_pads_single_encodings(formulas):
    tokenizer = CompositionTokenizer()
    batch = DataCollatorWithPadding(tokenizer)([tokenizer(formula) for formula in formulas])
    assert batch["amounts"].shape == batch["input_ids"].shape
