"""Every masking scheme: laws, and rates in exact binomial windows over 100,000 sequences.

Tokens of one sequence are hidden together, so only the same place of different sequences is independent: the windows
are over sequences, place by place.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare

from matfm import MatfmError, SelfiesTokenizer, SmilesTokenizer
from matfm.chem.composition_schemes import FIRST_ELEMENT, VOCABULARY, encode_fractions
from matfm.chem.mask_choice import MAX_SPAN, PackedUnits, span_start_chance
from matfm.chem.masking import FORMULA_SCHEMES, MASK, MOLECULE_SCHEMES, MaskingConfig, mask_elements, mask_tokens
from matfm.chem.molecule_units import molecule_units, selfies_units
from matfm.chem.token_classes import selfies_classes, smiles_classes
from matfm.core.layout import PackedLayout

ROWS = 100_000
ASPIRIN, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
IBUPROFEN, PENICILLIN = "CC(C)Cc1ccc(C(C)C(=O)O)cc1", "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O"
MOLECULES = ("CCO", ASPIRIN, CAFFEINE, IBUPROFEN, PENICILLIN, "[Na+].[Cl-]", "[Pu]1CC1.CC(C)C", "C")
KINDS = [scheme for scheme in MOLECULE_SCHEMES if scheme not in ("uniform", "span")]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def inside(count, trials, chance):
    """Whether a count lies in the 99.9 % window of the binomial distribution."""
    if chance in (0, 1):
        return count == chance * trials
    return binom.ppf(0.0005, trials, chance) <= count <= binom.ppf(0.9995, trials, chance)


def repeated(ids, rows=ROWS):
    """The same sequence many times."""
    return torch.tensor(ids).repeat(rows), PackedLayout.from_lengths([len(ids)] * rows)


def times_hidden(masked, length):
    return torch.bincount(masked.positions_M % length, minlength=length).tolist()


def extra(chances, rate):
    """What "at least one" adds to each of independent choices of one sequence."""
    return rate + (1 - rate) ** chances / chances


def token_chances(units, length, rate):
    """Exact chance of every token to be hidden, from all subsets of the units of its sequence."""
    chances = np.zeros(length)
    for chosen in itertools.product((False, True), repeat=len(units)):
        weight = rate ** sum(chosen) * (1 - rate) ** (len(units) - sum(chosen))
        options = [chosen] if any(chosen) else [tuple(i == j for j in range(len(units))) for i in range(len(units))]
        for option in options:
            hidden = set().union(*(unit for unit, taken in zip(units, option, strict=True) if taken))
            chances[list(hidden)] += weight / len(options)
    return chances.round(12)


@pytest.fixture(scope="module")
def smiles():
    tokenizer = SmilesTokenizer()
    return tokenizer, smiles_classes(tokenizer.get_vocab())


@pytest.fixture(scope="module")
def selfies():
    tokenizer = SelfiesTokenizer()
    return tokenizer, selfies_classes(tokenizer.get_vocab())


def test_uniform_rate():
    ids, layout = repeated([2, 5, 6, 12, 30])
    masked = mask_elements(ids, layout, MaskingConfig(rows=1.0, rate=0.25), generator(1))
    counts = times_hidden(masked, 5)
    assert counts[0] == 0
    assert all(inside(count, ROWS, extra(4, 0.25)) for count in counts[1:])


def test_share_of_rows_and_at_least_one():
    ids, layout = repeated([2, 5, 6, 12, 30])
    for scheme in FORMULA_SCHEMES:
        masked = mask_elements(ids, layout, MaskingConfig(rows=0.3, rate=0.0, scheme=scheme), generator(2))
        assert inside(int(masked.masked_row_B.sum()), ROWS, 0.3)
        assert torch.equal(torch.unique(masked.positions_M // 5), masked.masked_row_B.nonzero()[:, 0])
        everything = mask_elements(ids, layout, MaskingConfig(rows=1.0, rate=1.0, scheme=scheme), generator(2))
        assert len(everything.positions_M) == 4 * ROWS


def test_element_groups_are_hidden_together_at_the_rate():
    groups = [{1, 2}, {3, 5}, {4}]
    ids, layout = repeated([2, *(VOCABULARY[symbol] for symbol in ("Li", "Na", "Fe", "O", "Co"))])
    masked = mask_elements(ids, layout, MaskingConfig(rows=1.0, rate=0.3, scheme="element_group"), generator(3))
    counts = times_hidden(masked, 6)
    hidden = torch.zeros(len(ids), dtype=torch.bool).index_fill(0, masked.positions_M, True).view(-1, 6)
    assert torch.equal(hidden[:, 1], hidden[:, 2])
    assert torch.equal(hidden[:, 3], hidden[:, 5])
    assert not torch.equal(hidden[:, 1], hidden[:, 3])
    chances = token_chances(groups, 6, 0.3)
    assert chances[1] == pytest.approx(extra(3, 0.3))
    assert all(inside(counts[place], ROWS, chances[place]) for place in (0, 1, 3, 4))


def test_user_groups_are_hidden_together():
    config = MaskingConfig(rows=1.0, rate=0.3, scheme="element_group", groups={"oxide": ("Li", "O")})
    ids, layout = repeated([2, *(VOCABULARY[symbol] for symbol in ("Li", "Na", "O"))], 2000)
    hidden = torch.zeros(len(ids), dtype=torch.bool)
    hidden[mask_elements(ids, layout, config, generator()).positions_M] = True
    hidden = hidden.view(-1, 4)
    assert torch.equal(hidden[:, 1], hidden[:, 3])
    assert not torch.equal(hidden[:, 1], hidden[:, 2])


def span_chances(tokens, rate):
    """Exact chances of a sequence of ordinary tokens: the rate, and one span where no other fell."""
    weights = 0.2 * 0.8 ** np.arange(MAX_SPAN)
    longer = 1 - np.concatenate([[0], np.cumsum(weights / weights.sum())[:-1]])
    start = span_start_chance(rate)
    assert np.prod(1 - start * longer) == pytest.approx(1 - rate)
    empty = (1 - start) ** tokens * np.prod(1 - start * longer[1:])
    return rate + empty * np.cumsum(np.pad(longer, (0, tokens))[:tokens]) / tokens


@pytest.mark.parametrize("tokens", [1, 3, 14])
def test_spans_hide_every_place_at_the_rate(tokens, smiles):
    ids, layout = repeated([2, *range(40, 40 + tokens), 3])
    config = MaskingConfig(rows=1.0, rate=0.15, scheme="span")
    masked = mask_tokens(ids, layout, smiles[1], config, generator(4))
    counts = times_hidden(masked, tokens + 2)
    assert counts[0] == counts[-1] == 0
    assert all(inside(n, ROWS, p) for n, p in zip(counts[1:-1], span_chances(tokens, 0.15), strict=True))


def test_spans_have_the_mean_length_of_the_paper(smiles):
    ids, layout = repeated([2, *[40] * 2000, 3], 100)
    config = MaskingConfig(rows=1.0, rate=0.001, scheme="span")
    masked = mask_tokens(ids, layout, smiles[1], config, generator(5))
    gaps = masked.positions_M[1:] - masked.positions_M[:-1]
    assert len(masked.positions_M) / (1 + int((gaps > 1).sum())) == pytest.approx(3.8, abs=0.5)


def test_an_unknown_token_ends_a_span_and_is_never_hidden(smiles):
    ids, layout = repeated([2, 40, 41, 1, 42, 3])
    config = MaskingConfig(rows=1.0, rate=0.5, scheme="span")
    counts = times_hidden(mask_tokens(ids, layout, smiles[1], config, generator(6)), 6)
    assert counts[3] == 0
    # Both segments keep the rate at their edges; sequences without a span add to it.
    assert all(count >= binom.ppf(0.0005, ROWS, 0.5) for count in (counts[1], counts[2], counts[4]))


def tiled(packed, length):
    """Units of one sequence for `ROWS` copies of it."""
    row = torch.arange(ROWS)[:, None]
    units = len(packed.row_U)
    return PackedUnits(
        (row + packed.row_U).flatten(),
        (row * units + packed.unit_P).flatten(),
        (row * length + packed.position_P).flatten(),
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("functional_group", ASPIRIN),
        ("ring", CAFFEINE),
        ("scaffold", IBUPROFEN),
        ("branch", PENICILLIN),
        ("ring", "CCO"),
    ],
)
def test_units_of_molecules_are_hidden_at_the_rate(kind, text, smiles):
    tokenizer, classes = smiles
    units = molecule_units(text, kind)
    one = tokenizer(text)["input_ids"]
    ids, layout = repeated(one)
    packed = tiled(PackedUnits.from_positions([units], PackedLayout.from_lengths([len(one)])), len(one))
    masked = mask_tokens(ids, layout, classes, MaskingConfig(rows=1.0, rate=0.2, scheme=kind), generator(7), packed)
    singles = [[place] for place in range(len(one) - 2)]
    chances = token_chances([{place + 1 for place in unit} for unit in units or singles], len(one), 0.2)
    counts = times_hidden(masked, len(one))
    # Tokens of the same units are hidden together: one window for all of them.
    place_of = {tuple(place - 1 in unit for unit in units or singles): place for place in range(len(one))}
    assert len(place_of) >= 2
    assert all(inside(counts[place], ROWS, chances[place]) for place in place_of.values()), (counts, chances)


def batch(tokenizer, texts):
    rows = sorted(((tokenizer(text)["input_ids"], text) for text in texts), key=lambda row: len(row[0]))
    ids = torch.tensor(list(itertools.chain.from_iterable(row for row, _ in rows)))
    return ids, PackedLayout.from_lengths([len(row) for row, _ in rows]), [text for _, text in rows]


@pytest.mark.parametrize("replacement", ["uniform", "class"])
@pytest.mark.parametrize("scheme", MOLECULE_SCHEMES)
@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_laws_for_molecules(scheme, replacement, notation, request):
    from matfm import smiles_to_selfies

    tokenizer, classes = request.getfixturevalue(notation)
    find, convert = (molecule_units, str) if notation == "smiles" else (selfies_units, smiles_to_selfies)
    ids, layout, texts = batch(tokenizer, [convert(text) for text in MOLECULES for _ in range(40)])
    units = None
    if scheme in KINDS:
        found = {text: find(text, scheme) for text in set(texts)}
        units = PackedUnits.from_positions([found[text] for text in texts], layout)
    config = MaskingConfig(rows=0.7, rate=0.3, scheme=scheme, replacement=replacement)
    masked, again = (mask_tokens(ids, layout, classes, config, generator(8), units) for _ in range(2))
    assert all(torch.equal(getattr(masked, name), getattr(again, name)) for name in vars(masked))
    check_laws(ids, layout, classes, masked, replacement)
    assert 0.6 < masked.masked_row_B.float().mean() < 0.8


@pytest.mark.parametrize("replacement", ["uniform", "class"])
@pytest.mark.parametrize("scheme", FORMULA_SCHEMES)
def test_laws_for_formulas(scheme, replacement, formulas):
    sequences = sorted((encode_fractions(formula)[0] for formula in formulas * 40), key=len)
    ids = torch.tensor(list(itertools.chain.from_iterable(sequences)))
    layout = PackedLayout.from_lengths([len(sequence) for sequence in sequences])
    config = MaskingConfig(rows=0.7, rate=0.3, scheme=scheme, replacement=replacement)
    masked, again = (mask_elements(ids, layout, config, generator(9)) for _ in range(2))
    assert all(torch.equal(getattr(masked, name), getattr(again, name)) for name in vars(masked))
    check_laws(ids, layout, config.element_classes, masked, replacement)


def check_laws(ids, layout, classes, masked, replacement):
    positions = masked.positions_M
    assert len(positions)
    assert (classes.of(masked.labels_M) >= 0).all(), "a special token was hidden"
    assert torch.equal(ids[positions], masked.labels_M)
    untouched = torch.ones(len(ids), dtype=torch.bool).index_fill(0, positions, False)
    assert torch.equal(masked.ids_N[untouched], ids[untouched])
    new = masked.ids_N[positions]
    drawn = new != MASK
    assert (classes.of(new[drawn]) >= 0).all(), "a special token was drawn"
    if replacement == "class":
        assert torch.equal(classes.of(new[drawn]), classes.of(masked.labels_M[drawn]))
    else:
        assert not torch.equal(classes.of(new[drawn]), classes.of(masked.labels_M[drawn]))
    rows = torch.repeat_interleave(
        torch.arange(layout.sequences), torch.tensor([n for count, n in layout.runs for _ in range(count)])
    )
    assert torch.equal(torch.unique(rows[positions]), masked.masked_row_B.nonzero()[:, 0])


@pytest.mark.parametrize("scheme", FORMULA_SCHEMES)
@pytest.mark.parametrize("replacement", ["uniform", "class"])
def test_eighty_ten_ten(scheme, replacement):
    ids = torch.randint(FIRST_ELEMENT, len(VOCABULARY), (50_000, 5), generator=generator(10))
    ids[:, 0] = 2
    ids, layout = ids.flatten(), PackedLayout.from_lengths([5] * 50_000)
    config = MaskingConfig(rows=1.0, rate=0.5, scheme=scheme, replacement=replacement)
    masked = mask_elements(ids, layout, config, generator(11))
    new, labels = masked.ids_N[masked.positions_M], masked.labels_M
    assert len(labels) > 100_000
    assert inside(int((new == MASK).sum()), len(labels), 0.8)
    classes = config.element_classes
    for index in range(len(classes.names)) if replacement == "class" else [None]:
        ours = torch.ones_like(labels, dtype=torch.bool) if index is None else classes.of(labels) == index
        choices = 118 if index is None else int((classes.class_of_V == index).sum())
        # A random token may be the original one.
        assert inside(int((new[ours] == labels[ours]).sum()), int(ours.sum()), 0.1 + 0.1 / choices)


@pytest.mark.parametrize("replacement", ["uniform", "class"])
def test_random_tokens_are_drawn_evenly(replacement):
    iron = VOCABULARY["Fe"]
    ids, layout = repeated([2, iron])
    config = MaskingConfig(rows=1.0, mask_share=0.0, random_share=1.0, replacement=replacement)
    new = mask_elements(ids, layout, config, generator(12)).ids_N[1::2]
    counts = torch.bincount(new, minlength=len(VOCABULARY))
    classes = config.element_classes
    allowed = classes.class_of_V == classes.class_of_V[iron] if replacement == "class" else classes.class_of_V >= 0
    assert int(counts[~allowed].sum()) == 0
    assert chisquare(counts[allowed].numpy()).pvalue > 0.001


@pytest.mark.parametrize("scheme", FORMULA_SCHEMES)
def test_sequences_of_special_tokens_stay_as_they_are(scheme):
    ids, layout = torch.tensor([2, 2, 2, 0, 0, 0, 2, 1, 3, 2, 30, 8]), PackedLayout.from_lengths([1, 1, 1, 3, 3, 3])
    masked = mask_elements(ids, layout, MaskingConfig(rows=1.0, scheme=scheme), generator(13))
    assert masked.masked_row_B.tolist() == [False] * 5 + [True]
    assert set(masked.positions_M.tolist()) <= {10, 11}
    alone = mask_elements(
        ids[:9], PackedLayout.from_lengths([1, 1, 1, 3, 3]), MaskingConfig(1.0, scheme=scheme), generator()
    )
    assert torch.equal(alone.ids_N, ids[:9])
    assert len(alone.positions_M) == 0


def test_units_cut_by_truncation_are_left_out(smiles):
    tokenizer, classes = smiles
    text = "C1CC1CC1CC1"
    ids = tokenizer(text, truncation=True, max_length=9)["input_ids"]
    layout = PackedLayout.from_lengths([len(ids)])
    packed = PackedUnits.from_positions([molecule_units(text, "ring")], layout)
    config = MaskingConfig(rows=1.0, rate=1.0, scheme="ring")
    masked = mask_tokens(torch.tensor(ids), layout, classes, config, generator(), packed)
    assert masked.positions_M.tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="longer"):
        PackedUnits.from_positions([], layout)


def test_no_rows_chosen_hides_nothing():
    ids, layout = repeated([2, 5, 6], 50)
    masked = mask_elements(ids, layout, MaskingConfig(rows=0.0), generator())
    assert torch.equal(masked.ids_N, ids)
    assert len(masked.labels_M) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 1.5}, r"masking.rows is 1.5; it is a share"),
        ({"mask_share": 0.8, "random_share": 0.3}, "add up to more than 1"),
        ({"scheme": "rings"}, "masking.scheme is 'rings'; choose one of uniform, span, element_group, "),
        ({"replacement": "same"}, "masking.replacement is 'same'; choose one of uniform, class"),
        ({"groups": {"mine": ("Fe", "Xx")}}, "masking.groups: element group 'mine' names 'Xx'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(MatfmError, match=message):
        MaskingConfig(**settings)


def test_schemes_and_units_must_fit(smiles):
    ids, layout = repeated([2, 40, 3], 2)
    with pytest.raises(MatfmError, match="'ring', which needs molecules; formulas take uniform, span, element_group"):
        mask_elements(ids, layout, MaskingConfig(scheme="ring"), generator())
    with pytest.raises(MatfmError, match="'ring' needs units"):
        mask_tokens(ids, layout, smiles[1], MaskingConfig(scheme="ring"), generator())
    units = PackedUnits.from_positions([[[0]], []], layout)
    with pytest.raises(MatfmError, match="'span' takes no units"):
        mask_tokens(ids, layout, smiles[1], MaskingConfig(scheme="span"), generator(), units)
