"""Properties, their units and physical bounds, in one table for heads, plots, cards and recipes."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Property:
    """A measured or computed quantity. Bounds are in `unit`; None means unbounded."""

    name: str
    unit: str
    lower: float | None = None
    upper: float | None = None
    description: str = ""
    family: str = ""
    """Properties of one family are the same quantity by other methods or on another scale, or one tells the other."""

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds as numbers, infinite where there is none."""
        return (-math.inf if self.lower is None else self.lower, math.inf if self.upper is None else self.upper)

    def in_unit(self, unit: str) -> Property:
        """The property in another unit: bounds are converted, or given up where no factor is known."""
        unit = unit.strip()
        if unit == self.unit:
            return self
        factor = conversion_factor(self.unit, unit)
        if factor is None:
            return replace(self, unit=unit, lower=None, upper=None)
        lower, upper = (None if bound is None else bound * factor for bound in (self.lower, self.upper))
        return replace(self, unit=unit, lower=lower, upper=upper)


_SCALES: dict[str, dict[str, float]] = {
    "energy": {"eV": 1.0, "meV": 1e-3, "Ha": 27.211386245988, "hartree": 27.211386245988, "Ry": 13.605693122994},
    "energy per atom": {"eV/atom": 1.0, "meV/atom": 1e-3, "Ha/atom": 27.211386245988},
    "energy per unit cell": {"eV/unit cell": 1.0, "meV/unit cell": 1e-3},
    "energy per mole": {"kcal/mol": 1.0, "kJ/mol": 1 / 4.184},
    "volume per atom": {"Å³/atom": 1.0, "Å^3/atom": 1.0, "A^3/atom": 1.0, "nm³/atom": 1e3, "nm^3/atom": 1e3},
    "pressure": {"GPa": 1.0, "MPa": 1e-3, "kPa": 1e-6, "Pa": 1e-9, "kbar": 0.1, "bar": 1e-4},
    "wavenumber": {"1/cm": 1.0, "cm^-1": 1.0, "cm-1": 1.0, "THz": 33.356409519815},
    "thermal conductivity": {"W/(m K)": 1.0, "W/m/K": 1.0, "W/mK": 1.0, "W/(m·K)": 1.0, "mW/(m K)": 1e-3},
    "thermal expansion": {"1/K": 1.0, "K^-1": 1.0, "1e-6/K": 1e-6, "ppm/K": 1e-6},
    "magnetic moment": {"μB": 1.0, "mu_B": 1.0, "muB": 1.0},
    "number": {"": 1.0, "1": 1.0, "%": 0.01},
}
"""Unit to its size, by dimension (CODATA 2018). Logarithms and per-something units stand in no such relation."""


def conversion_factor(unit: str, other: str) -> float | None:
    """What a number in `unit` is multiplied by to be in `other`; None if they do not differ by a known factor."""
    unit, other = _spelled(unit), _spelled(other)
    if unit == other:
        return 1.0
    for sizes in _SCALES.values():
        if unit in sizes and other in sizes:
            return sizes[unit] / sizes[other]
    return None


def _spelled(unit: str) -> str:
    # Two signs look alike twice: the micro sign and mu, the angstrom sign and the letter (NFC joins the latter).
    return unicodedata.normalize("NFC", unit.strip()).replace("\u00b5", "μ")


PROPERTIES: dict[str, Property] = {
    known.name: known
    for known in (
        # Electrons
        Property("band_gap", "eV", 0.0, None, "electronic band gap, 0 for metals", "band_gap"),
        Property("band_gap_expt", "eV", 0.0, None, "measured band gap, 0 for metals", "band_gap"),
        Property("band_gap_pbe", "eV", 0.0, None, "band gap by DFT with the PBE functional", "band_gap"),
        Property("is_metal", "", 0.0, 1.0, "1 for metals, 0 for others", "band_gap"),
        Property("refractive_index", "", 1.0, None, "refractive index n, static, electronic part", "refractive_index"),
        Property("magnetization", "μB", None, None, "total magnetization of the cell, signed", "magnetization"),
        # Energies
        Property("formation_enthalpy", "eV/atom", None, None, "formation enthalpy per atom", "formation_energy"),
        Property(
            "perovskite_formation_energy",
            "eV/unit cell",
            description="heat of formation of the five-atom perovskite cell",
            family="formation_energy",
        ),
        Property("energy_per_atom", "eV/atom", None, None, "total energy per atom", "formation_energy"),
        Property("e_above_hull", "eV/atom", 0.0, None, "energy above the convex hull", "stability"),
        Property("decomposition_energy", "eV/atom", None, None, "energy towards competing phases", "stability"),
        Property("exfoliation_energy", "meV/atom", None, None, "energy to peel off one layer", "exfoliation_energy"),
        # Structure, vibrations and heat
        Property("volume_per_atom", "Å³/atom", 0.0, None, "cell volume per atom", "volume_per_atom"),
        Property("phonon_peak", "1/cm", 0.0, None, "highest-frequency peak of the phonon density of states", "phonons"),
        Property("debye_temperature", "K", 0.0, None, "Debye temperature", "debye_temperature"),
        Property("thermal_conductivity", "W/(m K)", 0.0, None, "lattice thermal conductivity", "thermal_conductivity"),
        Property("thermal_expansion", "1/K", None, None, "thermal expansion, negative for some", "thermal_expansion"),
        Property("glass_forming", "", 0.0, 1.0, "1 if a metallic glass forms, 0 if not", "glass_forming"),
        # Mechanics; the bounds of moduli and anisotropy are those of stable crystals (Born's criteria)
        Property("bulk_modulus", "GPa", 0.0, None, "bulk modulus (Voigt-Reuss-Hill)", "bulk_modulus"),
        Property("shear_modulus", "GPa", 0.0, None, "shear modulus (Voigt-Reuss-Hill)", "shear_modulus"),
        Property("log10_bulk_modulus", "log10(GPa)", None, None, "log10 of the bulk modulus in GPa", "bulk_modulus"),
        Property("log10_shear_modulus", "log10(GPa)", None, None, "log10 of the shear modulus in GPa", "shear_modulus"),
        Property("elastic_anisotropy", "", 0.0, None, "universal elastic anisotropy index", "elastic_anisotropy"),
        Property("yield_strength", "MPa", 0.0, None, "yield strength of steels", "yield_strength"),
        # Molecules
        Property("pic50", "-log10(M)", None, None, "half maximal inhibitory concentration", "pic50"),
        Property("pec50", "-log10(M)", None, None, "half maximal effective concentration", "pec50"),
        Property("pki", "-log10(M)", None, None, "inhibition constant", "pki"),
        Property("log_solubility", "log10(mol/L)", None, None, "solubility in water (ESOL)", "solubility"),
        Property("hydration_free_energy", "kcal/mol", None, None, "hydration free energy (FreeSolv)", "hydration"),
        Property("lipophilicity", "log10(ratio)", None, None, "octanol/water logD at pH 7.4", "lipophilicity"),
        Property("homo_energy", "eV", None, None, "highest occupied orbital of a molecule", "orbitals"),
        Property("lumo_energy", "eV", None, None, "lowest unoccupied orbital of a molecule", "orbitals"),
        Property("homo_lumo_gap", "eV", 0.0, None, "gap between these orbitals", "orbitals"),
    )
}

_ALIASES = {
    "band_gap": "band_gap_ev gap_ev bandgap egap e_gap",
    "band_gap_expt": "gap_expt expt_gap",
    "band_gap_pbe": "gap_pbe mp_gap pbe_gap",
    "is_metal": "expt_is_metal mp_is_metal",
    "refractive_index": "dielectric_n",
    "magnetization": "mu_b total_magnetization magnetisation",
    "formation_enthalpy": "formation_energy formation_energy_per_atom e_form mp_e_form delta_e",
    "perovskite_formation_energy": "castelli",
    "energy_per_atom": "energy_atom",
    "e_above_hull": "e_hull energy_above_hull",
    "exfoliation_energy": "exfoliation_en",
    "phonon_peak": "last_phdos_peak",
    "debye_temperature": "ael_debye_temperature",
    "thermal_conductivity": "agl_thermal_conductivity_300k",
    "thermal_expansion": "agl_thermal_expansion_300k",
    "glass_forming": "gfa",
    "bulk_modulus": "k_vrh bulk_modulus_vrh ael_bulk_modulus_vrh",
    "shear_modulus": "g_vrh shear_modulus_vrh ael_shear_modulus_vrh",
    "log10_bulk_modulus": "log10(k_vrh) log_kvrh log10_k_vrh",
    "log10_shear_modulus": "log10(g_vrh) log_gvrh log10_g_vrh",
    "elastic_anisotropy": "universal_anisotropy",
    "yield_strength": "steels_yield",
    "log_solubility": "esol logs measured_log_solubility_in_mols_per_litre",
    "hydration_free_energy": "freesolv",
    "lipophilicity": "logd",
}
"""Columns of common tables. Names that mean other things elsewhere (n, y, gap, expt) are left out on purpose."""

_NAMES = {name: name for name in PROPERTIES} | {a: name for name, text in _ALIASES.items() for a in text.split()}


def property_named(name: str, unit: str | None = None) -> Property:
    """The entry of that name or alias (`gap pbe`, `K_VRH`; case does not matter).

    Bounds are those of the entry in `unit`, the unit of the values; None or empty means the entry's. A name
    that the table does not know gives an unbounded property.
    """
    known = PROPERTIES.get(_NAMES.get(re.sub(r"[\s-]+", "_", name.strip()).casefold(), ""))
    if known is None:
        return Property(name, unit or "")
    return known.in_unit(unit) if unit else known


def markdown_table() -> str:
    """The properties as a table for the documentation."""
    aliases = {name: ", ".join(f"`{alias}`" for alias in text.split()) for name, text in _ALIASES.items()}
    rows = [
        f"| `{p.name}` | {p.unit} | {_bounds(p)} | {p.family} | {p.description} | {aliases.get(p.name, '')} |"
        for p in PROPERTIES.values()
    ]
    return "\n".join(["| Name | Unit | Bounds | Family | Meaning | Aliases |", "|" + " --- |" * 6, *rows]) + "\n"


def _bounds(known: Property) -> str:
    if known.lower is None and known.upper is None:
        return ""
    lower = "" if known.lower is None else f"{known.lower:g}"
    return f"≥ {lower}" if known.upper is None else f"{lower} to {known.upper:g}"
