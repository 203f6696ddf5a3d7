"""The report page in a real browser: light, dark and narrow; it is quiet, asks for nothing and fits a phone."""

import json
import subprocess
import sys

import pytest
from chromium_page import chromium, find_chromium
from conftest import FORMULAS

from matfm.tasks import finetune
from matfm.tasks.fit_config import FitConfig

PHONE = 390
"""CSS pixels of a common phone."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a tiny run on a table with a hostile row and a hostile column."""
    folder = tmp_path_factory.mktemp("report")
    hostile = "<img src=x onerror=alert(1)>"
    rows = [f"{formula},{len(formula)},{'' if place % 9 else 3}" for place, formula in enumerate(FORMULAS * 2)]
    header = f"formula,size,a long name of a property {hostile}"
    (folder / "table.csv").write_text("\n".join([header, *rows, f"{hostile},1,1"]) + "\n", "utf-8")
    config = finetune.FinetuneConfig(
        table=str(folder / "table.csv"),
        input="formula",
        targets=tuple(header.split(",")[1:]),
        test_share=0.4,
        ensemble=2,
        fit=FitConfig(backbone="scratch:tiny", epochs=1),
    )
    finetune.run(config, folder / "run")
    call = [sys.executable, "-m", "matfm"]
    made = subprocess.run([*call, "report", str(folder / "run")], check=True, capture_output=True, text=True)
    assert json.loads(made.stdout)["page"] == str(folder / "run" / "report.html")
    return folder / "run" / "report.html"


@pytest.mark.browser
def test_the_page_in_a_browser(page, tmp_path):
    assert find_chromium(), "this test needs Chromium (apt-get install chromium); leave it out with -m 'not browser'"
    with chromium(tmp_path / "profile") as tab:
        papers = {}
        for width, dark in ((1200, False), (1200, True), (PHONE, False)):
            tab.open(page, width, dark=dark)
            assert tab.complaints() == []
            assert tab.requests() == [page.as_uri()]
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("document.querySelectorAll('main > section').length") > 8
            assert tab.evaluate("document.querySelectorAll('script, img').length") == 0
            papers[width, dark] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            tab.screenshot(tmp_path / f"{width}-{dark}.png")
        assert papers[1200, True] != papers[1200, False] == papers[PHONE, False]
        wide = "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
        assert tab.evaluate(wide)  # what does not fit a phone scrolls within itself
        off = (
            "[...document.querySelectorAll('section *')].filter(e => !e.closest('.scroll, svg') && "
            f"e.getBoundingClientRect().right > {PHONE}).map(e => e.outerHTML.slice(0, 80))"
        )
        assert tab.evaluate(off) == []
        small = (
            "Math.min(...[...document.querySelectorAll('svg.chart text')].map(e => e.getBoundingClientRect().height))"
        )
        assert tab.evaluate(small) > 8


@pytest.mark.browser
def test_the_browser_of_these_tests_hears_complaints(tmp_path):
    """Without this, a page could complain and no test would notice."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><title>x</title><img src='http://example.org/x.png'><script>nothing()</script>", "utf-8"
    )
    assert find_chromium(), "this test needs Chromium (apt-get install chromium); leave it out with -m 'not browser'"
    with chromium(tmp_path / "profile") as tab:
        tab.open(bad)
        heard = json.dumps(tab.complaints())
        assert "nothing is not defined" in heard
        assert "http://example.org/x.png" in tab.requests()
