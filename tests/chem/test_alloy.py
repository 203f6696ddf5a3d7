"""Weight and atomic percentages."""

import pytest

from matfm import MatfmError, parse_formula

STEEL = {"Fe": 70, "Cr": 18, "Ni": 12}
WEIGHT = {"Fe": 55.845, "Cr": 51.996, "Ni": 58.693, "Ti": 47.867, "Al": 26.982, "V": 50.942, "Cu": 63.546, "Sn": 118.71}


def atomic(weights):
    moles = {symbol: percent / WEIGHT[symbol] for symbol, percent in weights.items()}
    return {symbol: 100 * amount / sum(moles.values()) for symbol, amount in moles.items()}


@pytest.mark.parametrize(
    "text",
    [
        "Fe 70 wt%, Cr 18 wt%, Ni 12 wt%",
        "70 wt% Fe, 18 wt% Cr, 12 wt% Ni",
        "Fe 70 wt.%; Cr 18 wt.%; Ni 12 wt.%",
        "Fe 70 wt.-%/Cr 18 wt.-%/Ni 12 wt.-%",
        "Fe 70 wt %\nCr 18 wt %\nNi 12 wt %\n",
        "Fe70Cr18Ni12 (wt%)",
        "70Fe-18Cr-12Ni [wt%]",
        "Fe 70 Cr 18 Ni 12 mass%",
        "Fe 70, Cr 18, Ni 12 weight%",
        "Fe bal., Cr 18 wt%, Ni 12 wt%",
        "Fe balance, Cr 18 wt%, Ni 12 wt%",
        "bal Fe, Cr 18 Wt%, Ni 12 Wt%",
        "Rest Fe, 18 WT% Cr, 12 WT% Ni",
        "Fe-18Cr-12Ni (wt%)",
        "Fe–18Cr–12Ni wt%",
        "Fe - 18 Cr - 12 Ni, wt%",
        "Fe-18 wt% Cr-12 wt% Ni",
    ],
)
def test_weight_percent(text):
    amounts = parse_formula(text).amounts
    assert amounts == pytest.approx(atomic(STEEL), rel=1e-4)
    assert list(amounts) == ["Fe", "Cr", "Ni"]
    assert sum(amounts.values()) == pytest.approx(100, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("Ti-6Al-4V wt%", {"Ti": 90, "Al": 6, "V": 4}),
        ("Cu-10Sn wt.%", {"Cu": 90, "Sn": 10}),
        ("Al-4.5Cu (wt.%)", {"Al": 95.5, "Cu": 4.5}),
        ("Cu 100 wt%", {"Cu": 100}),
        ("Fe 70.0 wt%, Cr 17.8 wt%, Ni 11.7 wt%", {"Fe": 70, "Cr": 17.8, "Ni": 11.7}),
    ],
)
def test_alloys(text, weights):
    assert parse_formula(text).amounts == pytest.approx(atomic(weights), rel=1e-4)


@pytest.mark.parametrize("text", ["Fe 70 at%, Ni 30 at.%", "Fe70Ni30 at%", "Fe-30Ni (mol%)", "Fe bal, Ni 30 atomic %"])
def test_atomic_percent(text):
    assert parse_formula(text).amounts == pytest.approx({"Fe": 70, "Ni": 30})


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("Fe 70 wt%, Cr 10 wt%", None, "the percentages sum to 80, not 100; correct them, or mark one element 'bal.'"),
        ("Fe 0.7 wt%, Cr 0.3 wt%", None, "sum to 1, not 100"),
        ("Fe 70 wt%, Cr 30 at%", 17, "mixed"),
        ("Fe 70 wt%, Fe 30 wt%", 11, "'Fe' is given twice"),
        ("Fe bal., Cr bal., Ni 12 wt%", 9, "cannot both be the balance"),
        ("Fe bal., Cr 60 wt%, Ni 50 wt%", 0, "the others sum to 110; nothing is left for 'Fe'"),
        ("Fe bal., Cr 100 wt%", 0, "nothing is left"),
        ("Fe 70 wt%, Cr", 11, "'Cr' has no percentage"),
        ("Fe 70 wt%, 30", 11, "'30' belongs to no element"),
        ("Fe 70 wt%, Xx 30 wt%", 11, "'Xx' is not one element"),
        ("Li 70 wt%, D 30 wt%", 11, "'D' is not one element"),
        ("SiO2 70 wt%, Na 30 wt%", 0, "not of compounds"),
        ("SiO2 70 wt%, Na2O 30 wt%", 0, "not of compounds"),
        ("Na2O 30 wt%, Si 68 wt%", 0, "not of compounds"),
        ("Na2O 98 wt%", 0, "not of compounds"),
        ("SiO2 wt%", 0, "not one element with one percentage"),
        ("Fe, Cr 30 wt%", 0, "'Fe' has no percentage"),
        ("Fe wt%", 0, "'Fe' has no percentage"),
        ("Fe(CN) 70 wt%", 2, "percentages are of elements, not of compounds"),
        ("Fe 0 wt%, Cr 100 wt%", 0, "no percentage above 0"),
        ("Fe 170 wt%", 0, "no percentage above 0 and up to 100"),
        ("Fe 70 wt%, Cr 30 %", 17, "a percentage of what"),
        ("Fe <70 wt%", 3, "has no meaning"),
        ("wt%", 0, "no element was found"),
        ("Al2O3: 1 at% Cr", 5, "a colon marks a dopant"),
    ],
)
def test_percentages_that_leave_a_question_are_rejected(text, position, reason):
    with pytest.raises(MatfmError) as caught:
        parse_formula(text)
    assert (caught.value.text, caught.value.position) == (text, position)
    assert reason in caught.value.reason
