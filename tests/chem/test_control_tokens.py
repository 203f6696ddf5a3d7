"""Every formula has one class; control tokens stand around it and have no amounts."""

import pytest

from matfm import CompositionTokenizer, MatfmError, parse_formula
from matfm.chem.control_tokens import CLASS_TOKENS, CONTROL_TOKENS, composition_class, control_tokens, task_token
from matfm.tasks.encoding import FormulaEncoder, own_tokens

CLASSES = {
    "Fe": "ELEMENT", "C60": "ELEMENT", "CH3NH3PbI3": "ORGANIC", "Fe2O3": "OXIDE", "BiOCl": "OXIDE", "CaCO3": "OXIDE",
    "NaCl": "HALIDE", "NH4Cl": "HALIDE", "PbTe": "CHALCOGENIDE", "GaAs": "PNICTIDE", "TiC": "CARBIDE",
    "MgB2": "BORIDE", "FeSi2": "TETRELIDE", "LaNi5H6": "HYDRIDE", "HeNa2": "OTHER", "Cu3Au": "INTERMETALLIC",
}  # fmt: skip


def test_each_formula_has_the_class_that_the_definition_says():
    found = {formula: composition_class(list(parse_formula(formula).amounts)) for formula in CLASSES}
    assert found == {formula: f"[{name}]" for formula, name in CLASSES.items()}
    assert set(found.values()) == set(CLASS_TOKENS)
    assert len(CLASS_TOKENS) + 1 == CONTROL_TOKENS


def test_rows_get_their_tokens_whatever_stands_beside_them():
    plain, encoder = FormulaEncoder(), FormulaEncoder().with_control(["gap expt (eV)"])
    cells = ["Fe2O3", "nonsense(", *CLASSES]
    one, other = plain(cells), encoder(cells)
    assert (one.rows.tolist(), one.errors) == (other.rows.tolist(), other.errors)
    assert own_tokens(encoder) == len(plain.tokenizer)
    for row, formula in enumerate(cells[position] for position in one.rows.tolist()):
        ids, amounts = (
            values[other.tokens.offsets[row] : other.tokens.offsets[row + 1]].tolist()
            for values in (other.tokens.ids_N, other.tokens.amounts_N)
        )
        before = slice(one.tokens.offsets[row], one.tokens.offsets[row + 1])
        assert [ids[0], *ids[2:-1]] == one.tokens.ids_N[before].tolist()
        assert [amounts[0], *amounts[2:-1]] == one.tokens.amounts_N[before].tolist()
        assert amounts[1] == amounts[-1] == 0
        names = encoder.tokenizer.convert_ids_to_tokens([ids[1], ids[-1]])
        assert names == [composition_class(list(parse_formula(formula).amounts)), "[GAP_EXPT_EV]"]


def test_the_tokenizer_reads_the_text_with_its_control_tokens(tmp_path):
    encoder = FormulaEncoder().with_control(["gap"])
    encoder.tokenizer.save_pretrained(tmp_path)
    tokenizer = CompositionTokenizer.from_pretrained(tmp_path)
    written = tokenizer("[OXIDE] Fe2O3 [GAP]")
    encoded = encoder(["Fe2O3"]).tokens
    assert written["input_ids"] == encoded.ids_N.tolist()
    assert written["amounts"] == pytest.approx(encoded.amounts_N.tolist())
    assert tokenizer.decode(written) == "Fe2O3"
    with pytest.raises(MatfmError):
        CompositionTokenizer()("[OXIDE] Fe2O3")


def test_a_task_is_called_by_its_targets_and_is_no_class():
    assert task_token(["k", "g"]) == "[K_G]"
    assert task_token(["–"]) == "[TASK]"
    names = control_tokens(["oxide"])
    assert len(set(names)) == CONTROL_TOKENS
