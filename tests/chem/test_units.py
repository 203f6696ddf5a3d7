"""The table of properties: names, aliases, bounds in the unit of the values, and who takes them from it."""

import math
import re
from pathlib import Path

import pytest

from matfm.chem.units import _ALIASES, PROPERTIES, Property, conversion_factor, markdown_table, property_named
from matfm.tasks.recipes.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[2]


def test_entries_are_complete_and_their_bounds_are_ordered():
    for name, known in PROPERTIES.items():
        assert known.name == name == name.casefold()
        assert known.description
        assert known.family
        low, high = known.limits
        assert low < high
        assert property_named(name) is known
        assert property_named(name, known.unit) is known


def test_an_alias_means_one_property_and_is_no_name():
    aliases = [alias for text in _ALIASES.values() for alias in text.split()]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & PROPERTIES.keys()
    assert _ALIASES.keys() <= PROPERTIES.keys()
    assert all(property_named(alias).name == name for name, text in _ALIASES.items() for alias in text.split())


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("gap pbe", "band_gap_pbe"), ("band_gap_ev", "band_gap"), ("e_form", "formation_enthalpy"), ("K_VRH", "bulk_modulus"),
        ("log10(G_VRH)", "log10_shear_modulus"), ("last phdos peak", "phonon_peak"), (" Band-Gap ", "band_gap"), ("GFA", "glass_forming"),
    ],
)  # fmt: skip
def test_common_column_names(written, name):
    assert property_named(written) is PROPERTIES[name]


@pytest.mark.parametrize("name", ["n", "y", "gap", "target", "", "volume"])
def test_ambiguous_and_unknown_names_have_no_bounds(name):
    assert property_named(name) == Property(name, "")
    assert property_named(name, "m").unit == "m"
    assert property_named(name).limits == (-math.inf, math.inf)


def test_bounds_are_converted_or_given_up():
    ranged = Property("e", "eV/atom", -2.0, 3.0)
    assert ranged.in_unit("meV/atom") == Property("e", "meV/atom", -2000.0, 3000.0)
    assert ranged.in_unit("eV") == Property("e", "eV")
    modulus = Property("k", "GPa", 1.0)
    assert modulus.in_unit("MPa").lower == pytest.approx(1000)
    assert modulus.in_unit("log10(GPa)").limits == (-math.inf, math.inf)
    assert property_named("is_metal", "%").limits == (0, 100)
    assert property_named("bulk_modulus", "log10(GPa)").limits == (-math.inf, math.inf)
    assert property_named("e_form", "eV/unit cell") == Property(
        "formation_enthalpy", "eV/unit cell", None, None, "formation enthalpy per atom", "formation_energy"
    )
    assert property_named("homo_lumo_gap", "Ha").limits == (0, math.inf)


def test_factors_are_inverse_and_chain():
    from matfm.chem.units import _SCALES

    for units in _SCALES.values():
        for one in units:
            for other in units:
                assert conversion_factor(one, other) * conversion_factor(other, one) == pytest.approx(1)
    assert conversion_factor("eV", "eV/atom") is None
    assert conversion_factor("furlong", "furlong") == 1
    assert conversion_factor("kcal/mol", "kJ/mol") == pytest.approx(4.184)
    assert conversion_factor("THz", "1/cm") == pytest.approx(33.3564, abs=1e-4)


def test_spellings_of_a_unit():
    assert conversion_factor("\u00b5B", "μB") == 1
    assert conversion_factor("\u212b^3/atom", "Å³/atom") == 1
    assert property_named("band_gap", " eV ") is PROPERTIES["band_gap"]


def test_recipes_name_properties_of_the_table_in_its_units():
    for name in recipe_names():
        for column in (c for table in load_recipe(name).tables for c in table.columns):
            known = property_named(column.property)
            assert known in PROPERTIES.values(), (name, column.property)
            assert conversion_factor(column.unit, known.unit) is not None, (name, column.name)
            lower, upper = property_named(column.property, column.unit).limits
            low, high = column.range or (lower, upper)
            assert lower <= low, (name, column.name)
            assert high <= upper, (name, column.name)


def test_the_documentation_shows_this_table():
    text = (ROOT / "docs" / "validity.md").read_text("utf-8")
    inside = re.search(r"<!-- properties:start -->\n(.*?)<!-- properties:end -->", text, re.DOTALL)
    assert inside is not None
    assert inside.group(1) == markdown_table()
