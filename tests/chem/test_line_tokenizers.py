"""The Hugging Face tokenizers of SMILES and SELFIES."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from matfm import MatBERTConfig, MatfmError, SelfiesTokenizer, SmilesTokenizer, parse_smiles, selfies_to_smiles
from matfm.chem import selfies_tokenizer, smiles_tokenizer
from matfm.chem.selfies import split_selfies
from matfm.chem.smiles import split_smiles
from matfm.chem.vocabulary import SPECIAL_TOKENS, build_vocabulary, load_vocabulary, save_vocabulary

TRICKY = json.loads((Path(__file__).parents[1] / "data" / "tricky.json").read_text("utf-8"))
SMILES = [entry["smiles"] for entry in TRICKY["smiles"] if entry["rdkit_parses"] and entry["smiles"]]
SMILES = [parse_smiles(text).text for text in SMILES]
SELFIES = [entry["selfies"] for entry in TRICKY["selfies"] if entry["expected"] == "accept"]
KINDS = [(SmilesTokenizer, SMILES), (SelfiesTokenizer, SELFIES)]
PLAIN = """
import json, sys
from transformers import AutoTokenizer, PreTrainedTokenizerFast
folder, texts = sys.argv[1], json.load(open(sys.argv[2]))
loaded = [AutoTokenizer.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)]
answers = [[t(texts).data, t.batch_decode(t(texts)["input_ids"], skip_special_tokens=True), t.all_special_ids]
           for t in loaded]
assert "matfm" not in sys.modules
print(json.dumps(answers))
"""


@pytest.mark.parametrize(("kind", "texts"), KINDS)
def test_decoding_gives_the_string_back(kind, texts):
    tokenizer = kind()
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id
        assert len(ids) == len(kind.split(text)) + 2
        if tokenizer.unk_token_id not in ids:
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert (tokenizer.unk_token_id in ids) == bool(tokenizer.count_unknown([text]))


@pytest.mark.parametrize(("kind", "texts"), KINDS)
def test_the_pipeline_cuts_like_its_plain_twin(kind, texts):
    tokenizer = kind()
    for text in [*texts, "C C\n[C]é[[]]→%1%12", "", "[C", "𝒞\u0301[é]"]:
        pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        assert pieces == kind.split(text)


@pytest.mark.parametrize("kind", [SmilesTokenizer, SelfiesTokenizer])
def test_roles_of_special_tokens(kind):
    tokenizer = kind()
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("[CLS]", "[SEP]")
    assert len(tokenizer) == tokenizer.vocab_size == len(load_vocabulary(kind.notation.name)) + len(SPECIAL_TOKENS)


@pytest.mark.parametrize("kind", [SmilesTokenizer, SelfiesTokenizer])
def test_unknown_tokens_are_counted_and_never_dropped(kind):
    tokenizer = kind()
    text = "[Xq+7][C]" if kind is SelfiesTokenizer else "C[Xq+7]é"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(kind.split(text)) + 2
    coverage = tokenizer.coverage([text, text, "[C]"], max_length=4)
    assert coverage.unknown["[Xq+7]"] == 2
    assert coverage.strings == 3
    assert coverage.longest == len(kind.split(text))
    assert tokenizer.count_unknown([text]) == ids.count(tokenizer.unk_token_id)
    size = len(tokenizer)
    assert len(kind()) == size


def test_strings_that_would_be_truncated_are_counted_before_and_kept_whole_by_default():
    tokenizer = SmilesTokenizer()
    long = "C" * 256
    assert len(tokenizer(long)["input_ids"]) == 258
    assert tokenizer.coverage([long, "CC"], max_length=202).too_long == 1
    assert len(tokenizer(long, truncation=True, max_length=202)["input_ids"]) == 202


@pytest.mark.parametrize(("kind", "texts"), KINDS)
def test_loads_without_matfm_and_equals_the_original_on_10000_strings(kind, texts, tmp_path):
    tokenizer = kind()
    tokenizer.save_pretrained(tmp_path / "saved")
    generator = random.Random(0)
    vocabulary = [*load_vocabulary(kind.notation.name), "[Xq+7]", "[", "é", "[MASK]"]
    texts = [*texts, *("".join(generator.choices(vocabulary, k=generator.randrange(40))) for _ in range(10_000))]
    strings = tmp_path / "strings.json"
    strings.write_text(json.dumps(texts))
    run = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", PLAIN, str(tmp_path / "saved"), str(strings)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    expected = tokenizer(texts)
    decoded = tokenizer.batch_decode(expected["input_ids"], skip_special_tokens=True)
    for data, plain_decoded, special in json.loads(run.stdout):
        assert data == expected.data
        assert plain_decoded == decoded
        assert set(special) == set(tokenizer.all_special_ids)


@pytest.mark.parametrize(("kind", "texts"), KINDS)
def test_auto_tokenizer_gives_the_class_once_matfm_is_imported(kind, texts, tmp_path):
    kind().save_pretrained(tmp_path)
    MatBERTConfig().save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), kind.from_pretrained(tmp_path)):
        assert type(loaded) is kind
        assert loaded(texts).data == kind()(texts).data
        assert loaded.get_vocab() == kind().get_vocab()
    assert isinstance(PreTrainedTokenizerFast.from_pretrained(tmp_path), PreTrainedTokenizerFast)


def test_pairs_padding_and_masking_work_as_in_hugging_face():
    tokenizer = SmilesTokenizer()
    pair = tokenizer("CO", "C")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(pair) == ["[CLS]", "C", "O", "[SEP]", "C", "[SEP]"]
    batch = tokenizer(["CCO", "C"], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 5)
    assert set(batch) == {"input_ids", "attention_mask"}
    masked = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)([tokenizer("CCO"), tokenizer("C")])
    assert masked["labels"].shape == (2, 5)
    assert tokenizer("C[MASK]C")["input_ids"][2] == tokenizer.mask_token_id


def test_the_smiles_vocabulary_holds_what_no_corpus_is_needed_for():
    tokens = load_vocabulary("smiles")
    assert len(tokens) == len(set(tokens))
    assert set(smiles_tokenizer.ALWAYS) <= set(tokens)
    assert {"%10", "%99", "0", "[C@@H]", "[nH]", "[13CH4]", "[Na+]", "[te]", "->", "\\", "*"} <= set(tokens)
    assert all(split_smiles(token) == [token] for token in tokens)


def test_the_selfies_vocabulary_is_made_of_symbols():
    tokens = load_vocabulary("selfies")
    assert len(tokens) == len(set(tokens))
    assert set(selfies_tokenizer.ALWAYS) <= set(tokens)
    assert all(split_selfies(token) == [token] for token in tokens)


@pytest.mark.parametrize("token", [token for token in load_vocabulary("selfies") if token != "."])
def test_each_selfies_token_is_valid_whatever_is_bonded_to_it(token):
    for partner in ("[F]", "[=O]", "[#N]", "[C][F]"):
        for count in range(9):
            text = "[C]" + token + f"[Branch1][{'C' if partner != '[C][F]' else 'Ring1'}]{partner}" * count + "[F]"
            assert parse_smiles(selfies_to_smiles(text))


def test_a_vocabulary_is_built_by_count_and_size(tmp_path):
    texts = ["CCO", "CCN", "C[Fe]", "CN"]
    assert build_vocabulary(texts, split_smiles) == ["C", "N", "O", "[Fe]"]
    assert build_vocabulary(texts, split_smiles, min_count=2) == ["C", "N"]
    assert build_vocabulary(texts, split_smiles, always=["Br", "C"], max_size=3) == ["Br", "C", "N"]
    with pytest.raises(MatfmError, match="max_size"):
        build_vocabulary(texts, split_smiles, always=["Br", "C"], max_size=1)
    save_vocabulary(tmp_path / "v.json", ["C", "N"], ["a corpus"])
    own = SmilesTokenizer(load_vocabulary(tmp_path / "v.json"))
    assert len(own) == 7
    own.save_pretrained(tmp_path / "saved")
    assert SmilesTokenizer.from_pretrained(tmp_path / "saved")("CNO").data == own("CNO").data


def test_a_vocabulary_of_another_format_is_an_error(tmp_path):
    (tmp_path / "v.json").write_text('{"format": 2, "tokens": []}', "utf-8")
    with pytest.raises(MatfmError, match="format 2"):
        load_vocabulary(tmp_path / "v.json")
