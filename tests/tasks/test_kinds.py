"""What a saved model reads, and the written forms of molecules."""

import numpy as np
import pytest

from matfm import (
    CompositionTokenizer,
    MatBERTConfig,
    MatBERTModel,
    MatfmError,
    SelfiesTokenizer,
    SmilesTokenizer,
    parse_smiles,
)
from matfm.tasks.encoding import row_encoder
from matfm.tasks.enumeration import encode_forms, written_forms
from matfm.tasks.kinds import backbone_encoder, backbone_kind, saved_kind


def saved(folder, tokenizer, **config):
    options = {"position_embedding": "rotary", "vocab_size": len(tokenizer), **config}
    MatBERTModel(MatBERTConfig.of_size("tiny", **options)).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return str(folder)


@pytest.mark.parametrize(("tokenizer", "kind"), [(SmilesTokenizer, "smiles"), (SelfiesTokenizer, "selfies")])
def test_a_folder_says_what_its_model_reads(tokenizer, kind, tmp_path):
    folder = saved(tmp_path / "m", tokenizer())
    assert saved_kind(folder) == backbone_kind(folder) == backbone_kind(folder, kind) == kind
    with pytest.raises(MatfmError, match=f"reads {kind} and --kind is composition; choose a backbone of composition"):
        backbone_kind(folder, "composition")


def test_the_bundled_model_reads_compositions_and_nothing_else():
    assert backbone_kind("matbert-small") == backbone_kind("scratch:tiny") == "composition"
    assert backbone_kind("scratch:tiny", "selfies") == "selfies"
    with pytest.raises(MatfmError, match="matbert-small reads composition and --kind is smiles"):
        backbone_kind("matbert-small", "smiles")
    with pytest.raises(MatfmError, match="choose one of composition, smiles, selfies"):
        backbone_kind("scratch:tiny", "inchi")


def test_a_folder_without_tokenizer_cannot_read_molecules(tmp_path):
    MatBERTModel(MatBERTConfig.of_size("tiny")).save_pretrained(tmp_path)
    assert backbone_kind(str(tmp_path)) == "composition"
    with pytest.raises(MatfmError, match="holds no smiles tokenizer"):
        backbone_kind(str(tmp_path), "smiles")
    MatBERTModel(MatBERTConfig.of_size("tiny", vocab_size=200)).save_pretrained(tmp_path / "molecules")
    with pytest.raises(MatfmError, match="holds no tokenizer and its model has 200 tokens"):
        backbone_encoder(str(tmp_path / "molecules"))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(MatfmError, match="is not readable JSON"):
        saved_kind(str(tmp_path))


def test_the_encoder_has_the_model_s_vocabulary_and_limit(tmp_path):
    vocabulary = ["C", "O", "N", "1", "c"]
    absolute = saved(
        tmp_path / "a", SmilesTokenizer(vocabulary), position_embedding="absolute", max_position_embeddings=6
    )
    encoded = backbone_encoder(absolute)(["CCO", "CCF", "CCCCCCC", "CCCC"])
    assert encoded.unknown == {"F": 1}
    assert encoded.truncated_rows == [2]
    assert encoded.tokens.lengths_R.max() == 6
    rotary = saved(tmp_path / "r", SmilesTokenizer(vocabulary))
    assert backbone_encoder(rotary)(["CCCCCCC"]).truncated == 0


def test_a_backbone_of_another_scheme_of_formulas_is_refused(tmp_path):
    folder = saved(tmp_path / "m", CompositionTokenizer(scheme="count"))
    with pytest.raises(MatfmError, match="reads formulas in the scheme 'count'"):
        backbone_encoder(folder)


@pytest.mark.parametrize(("content", "message"), [(None, "holds no tokenizer.json"), ("{", "cannot be loaded")])
def test_a_damaged_tokenizer_is_one_sentence(content, message, tmp_path):
    folder = saved(tmp_path / "m", SmilesTokenizer(["C"]))
    file = tmp_path / "m" / "tokenizer.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(MatfmError, match=message) as caught:
        backbone_encoder(folder)
    assert "\n" not in str(caught.value)


MOLECULES = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].[Cl-]", "C"]


@pytest.mark.parametrize("kind", ["smiles", "selfies"])
def test_written_forms_are_the_same_molecule(kind):
    from matfm import selfies_to_smiles, smiles_to_selfies

    for smiles in MOLECULES:
        cell = smiles if kind == "smiles" else smiles_to_selfies(smiles)
        forms = written_forms(cell, kind, 6, seed=1)
        as_smiles = forms if kind == "smiles" else [selfies_to_smiles(form) for form in forms]
        assert {parse_smiles(form).canonical for form in as_smiles} == {parse_smiles(smiles).canonical}
        assert len(set(forms)) == len(forms) <= 6
        assert forms == written_forms(cell, kind, 6, seed=1)
    assert written_forms("OCC", "smiles", 0, 0) == ["CCO"]
    assert written_forms("OCC", "smiles", 4, 0) == written_forms("C(C)O", "smiles", 4, 0)
    assert len(written_forms(MOLECULES[0], "smiles", 10, 0)) == 10
    assert written_forms(MOLECULES[0], "smiles", 10, 0)[1:] != written_forms(MOLECULES[0], "smiles", 10, 1)[1:]


def test_forms_lie_behind_one_another():
    encoder = row_encoder("smiles")
    tokens, starts = encode_forms(encoder, MOLECULES, 5, 0)
    counts = [len(written_forms(smiles, "smiles", 5, 0)) for smiles in MOLECULES]
    assert np.diff(starts).tolist() == counts
    canonical = encoder(MOLECULES).tokens
    first = tokens.take(starts[:-1])
    assert first.ids_N.tolist() == canonical.ids_N.tolist()
    with pytest.raises(MatfmError, match="one written form"):
        encode_forms(row_encoder("composition"), ["Fe"], 5, 0)
