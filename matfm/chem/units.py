"""Properties, their units and physical bounds, in one table for heads, plots, cards and recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Property:
    """A measured or computed quantity. Bounds are in `unit`; None means unbounded."""

    name: str
    unit: str
    lower: float | None = None
    upper: float | None = None
    description: str = ""

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds as numbers, infinite where there is none."""
        return (-math.inf if self.lower is None else self.lower, math.inf if self.upper is None else self.upper)


PROPERTIES: dict[str, Property] = {
    known.name: known
    for known in (
        Property("band_gap", "eV", lower=0.0, description="electronic band gap, 0 for metals"),
        Property("formation_enthalpy", "eV/atom", description="formation enthalpy per atom"),
        Property("energy_per_atom", "eV/atom", description="total energy per atom"),
        Property("volume_per_atom", "Å³/atom", lower=0.0, description="cell volume per atom"),
    )
}


def property_named(name: str, unit: str | None = None) -> Property:
    """The table's entry, or an unbounded property with the given unit for names it does not know."""
    return PROPERTIES.get(name, Property(name, unit or ""))
