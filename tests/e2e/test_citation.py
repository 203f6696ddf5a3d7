"""`CITATION.cff` says what the package says of itself."""

from pathlib import Path

import yaml

import matfm

ROOT = Path(__file__).parents[2]


def test_the_citation_names_version_and_license_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == matfm.__version__
    assert citation["license"] in (ROOT / "LICENSE").read_text().splitlines()[0]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
