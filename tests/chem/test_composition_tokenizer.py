"""The Hugging Face tokenizer of formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, DataCollatorWithPadding

from matfm import CompositionTokenizer, MatBERTConfig, MatfmError
from matfm.chem.composition_schemes import CLS, SCHEMES, SEP, VOCABULARY, encode_fractions
from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import read_formula
from matfm.chem.formula_text import ORDERS, formula_text


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


TOKENIZERS = {scheme: CompositionTokenizer(scheme=scheme) for scheme in SCHEMES}
whole = st.integers(1, 120).map(float)
compositions = st.dictionaries(st.sampled_from(SYMBOLS), whole | st.floats(1e-4, 900), min_size=1, max_size=8)
few_atoms = st.dictionaries(st.sampled_from(SYMBOLS), whole, min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("scheme", "formula", "tokens"),
    [
        ("fraction", "Fe2O3", ["Fe", "O"]),
        ("repeat", "Fe2O3", ["Fe", "Fe", "O", "O", "O"]),
        ("repeat", "Li0.5CoO2", ["Li", "Co", "Co", *["O"] * 4]),
        ("repeat", "Fe(OH)2", ["Fe", "O", "O", "H", "H"]),
        ("count", "Fe2O3", ["Fe", "2", "O", "3"]),
        ("count", "C60H120", ["C", "60", "H", "#1", "#2", "#0"]),
        ("count", "YBa2Cu3O6.93", ["Y", "1", "Ba", "2", "Cu", "3", "O", "#6", "#.", "#9", "#3"]),
    ],
)
def test_schemes(scheme, formula, tokens):
    assert TOKENIZERS[scheme].tokenize(formula) == tokens


@pytest.mark.parametrize(
    ("order", "symbols"),
    [("written", "KNaHCO"), ("hill", "CHKNaO"), ("electronegativity", "KNaHCO"), ("alphabetical", "CHKNaO")],
)
def test_order_of_elements(order, symbols):
    assert "".join(CompositionTokenizer(order=order).tokenize("KNaHCO")) == symbols
    assert order in ORDERS


def test_special_tokens_end_the_sequence_where_order_matters():
    assert TOKENIZERS["fraction"]("NaCl")["input_ids"][-1] != SEP
    for scheme in ("repeat", "count"):
        encoded = TOKENIZERS[scheme]("NaCl")
        assert encoded["input_ids"][0] == CLS
        assert encoded["input_ids"][-1] == SEP
        assert "amounts" not in encoded


def same(left, right):
    return left.keys() == right.keys() and all(abs(left[s] - right[s]) < 1e-6 for s in left)


@pytest.mark.parametrize("scheme", ["fraction", "count"])
@given(compositions)
def test_decoding_gives_any_composition_back(scheme, amounts):
    formula = formula_text(amounts)
    encoded = TOKENIZERS[scheme](formula)
    back = TOKENIZERS[scheme].decode(encoded, skip_special_tokens=True)
    assert same(read_formula(back).fractions, read_formula(formula).fractions)
    if scheme == "count":
        assert read_formula(back).amounts == read_formula(formula).amounts


@given(few_atoms)
def test_repeat_gives_whole_amounts_back(amounts):
    formula = formula_text(amounts)
    ids = TOKENIZERS["repeat"](formula)["input_ids"]
    assert TOKENIZERS["repeat"].decode(ids, skip_special_tokens=True) == formula
    assert len(ids) == sum(amounts.values()) + 2


def test_fractions_decode_to_the_smallest_whole_amounts(formulas):
    tokenizer = TOKENIZERS["fraction"]
    assert tokenizer.decode(tokenizer("Fe4O6")) == "Fe2O3"
    batch = tokenizer(["Fe2O3", "Ba(Zr0.1Ti0.9)O3"], padding=True, return_tensors="pt")
    decoded = [tokenizer.decode(*pair) for pair in zip(batch["input_ids"], strict=True)]
    assert decoded[0].replace("[CLS]", "").replace("[PAD]", "") == "FeO"
    for ids, amounts, formula in zip(batch["input_ids"], batch["amounts"], ["Fe2O3", "Ba10ZrTi9O30"], strict=True):
        assert tokenizer.decode(ids, amounts=amounts) == formula


def test_repeat_refuses_what_it_cannot_write():
    for formula in ("Fe0.62C0.000953Mn0.379047", "C600"):
        with pytest.raises(MatfmError, match="use 'fraction' or 'count'"):
            TOKENIZERS["repeat"](formula)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Fe", "2", "3", "O"], "Fe 2 3 O"),
        (["2", "Fe"], "2 Fe"),
        (["Fe", "#1", "2"], "Fe #1 2"),
        (["Fe", "2", "#5"], "Fe 2 #5"),
        (["Fe", "#.", "2", "O", "3"], "Fe #. 2 O 3"),
        (["Fe", "#0", "#2", "O", "1"], "Fe #02 O 1"),
        (["Fe", "2", "Fe", "1"], "Fe 2 Fe 1"),
        (["O", "4", "#.", "#5", "H", "2", "O", "1"], "O 4 #.5 H 2 O 1"),
    ],
)
def test_generated_nonsense_decodes_to_text_that_is_rejected(tokens, text):
    tokenizer = TOKENIZERS["count"]
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(tokens)) == text
    with pytest.raises(MatfmError):
        read_formula(text)


def test_a_decoded_decimal_before_water_is_no_hydrate():
    ids = TOKENIZERS["count"]("SN4.5H2O1")["input_ids"]
    decoded = TOKENIZERS["count"].decode(ids, skip_special_tokens=True)
    assert read_formula(decoded).amounts == {"S": 1, "N": 4.5, "H": 2, "O": 1}


@pytest.mark.parametrize("scheme", ["repeat", "count"])
def test_scheme_and_order_are_saved(tmp_path, scheme):
    MatBERTConfig().save_pretrained(tmp_path)
    tokenizer = CompositionTokenizer(scheme=scheme, order="alphabetical")
    tokenizer.save_pretrained(str(tmp_path))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("SiO2").data == tokenizer("SiO2").data
    assert loaded.tokenize("SiO2")[0] == "O"
    assert len(loaded) == len(tokenizer) == {"repeat": 123, "count": 233}[scheme]


def test_unknown_schemes_and_orders_are_named():
    with pytest.raises(MatfmError, match="scheme is 'counts'; choose one of fraction, repeat, count"):
        CompositionTokenizer(scheme="counts")
    with pytest.raises(MatfmError, match="order is 'Hill'"):
        CompositionTokenizer(order="Hill")


def test_amounts_stay_beside_their_elements_however_it_is_padded_and_cut():
    tokenizer = TOKENIZERS["fraction"]
    left = tokenizer(["Fe2O3", "LiCoNiO2"], padding=True, padding_side="left")
    assert left["input_ids"][0][:2] == [0, 0]
    assert left["amounts"][0] == pytest.approx([0, 0, 0, 0.4, 0.6])
    one = tokenizer("Fe2O3", padding="max_length", max_length=5, padding_side="left")
    assert one["amounts"] == pytest.approx([0, 0, 0, 0.4, 0.6])
    cut = CompositionTokenizer(truncation_side="left")("LiCoNiMnO2", truncation=True, max_length=3)
    assert tokenizer.convert_ids_to_tokens(cut["input_ids"]) == ["[CLS]", "Mn", "O"]
    assert cut["amounts"] == pytest.approx([0, 1 / 6, 1 / 3])
    right = tokenizer("LiCoNiMnO2", truncation=True, max_length=3)
    assert right["amounts"] == pytest.approx([0, 1 / 6, 1 / 6])


@pytest.mark.parametrize("scheme", ["fraction", "repeat", "count"])
def test_special_tokens_are_marked(scheme):
    encoded = TOKENIZERS[scheme]("Fe2O3", return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    assert special == [int(index in (CLS, SEP)) for index in ids]


@pytest.mark.parametrize("scheme", ["fraction", "repeat", "count"])
def test_what_is_no_single_formula_is_refused(scheme):
    for empty in ("", " "):
        with pytest.raises(MatfmError, match="empty"):
            TOKENIZERS[scheme](empty)
    if scheme == "fraction":
        for call in (
            lambda: TOKENIZERS[scheme]("Fe", "O"),
            lambda: TOKENIZERS[scheme](["Fe"], is_split_into_words=True),
        ):
            with pytest.raises(MatfmError, match="one formula"):
                call()


def test_what_a_call_returned_can_be_decoded():
    tokenizer = TOKENIZERS["fraction"]
    assert tokenizer.decode(tokenizer("Fe2O3", return_tensors="pt")) == ["Fe2O3"]
    assert tokenizer.decode(tokenizer(["Fe2O3", "NaCl"], padding=True)) == ["Fe2O3", "NaCl"]
    assert tokenizer.batch_decode(tokenizer(["Fe2O3", "NaCl"], padding=True)) == ["Fe2O3", "NaCl"]
