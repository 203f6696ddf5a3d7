"""The pages of docs/ and README: what they tell to run runs, and the options and settings that they name exist."""

import re
import shlex
import shutil

import pytest
from documents import PAGES, README, ROOT, VERBS, blocks, has_key, inline_code, options_of, verb_of
from typer.testing import CliRunner

from matfm import MatfmError
from matfm.cli import app
from matfm.core.config import load_toml
from matfm.tasks.adaptation.config import AdaptConfig
from matfm.tasks.fewshot import FewshotConfig
from matfm.tasks.finetune import FinetuneConfig
from matfm.tasks.pretraining.config import PretrainConfig
from matfm.tasks.validity import ValidityConfig

START = ROOT / "docs" / "start.md"
CONFIGS = (FinetuneConfig, PretrainConfig, AdaptConfig, FewshotConfig, ValidityConfig)
PROGRAMS = {"apt-get", "mkdocs", "pip", "python", "torchrun"}
ALL = [README, *PAGES]


def name_of(page):
    return str(page.relative_to(ROOT))


def run_page(page, folder, monkeypatch):
    """Run its blocks in `folder`; those of Python share their names. README's shell is for people."""
    monkeypatch.chdir(folder)
    names = {}
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        elif block.language == "bash" and page != README:
            run_calls(block, f"{name_of(page)}:{block.line}")


def run_calls(block, place):
    calls = list(block.calls())
    lines = block.text.replace("\\\n", " ").strip().splitlines()
    assert len(calls) == len(lines), f"{place}: only calls of matfm are run; the fence of others is sh"
    for words in calls:
        result = CliRunner().invoke(app, words, prog_name="matfm")
        assert result.exit_code == 0, f"{place}: matfm {shlex.join(words)}: {result.exception!r}"


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A folder after the first page: the example tables and a first run."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_page(START, folder, monkeypatch)
    return folder


def runnable(page):
    """Whether a page has anything to run, and whether more than Python that stands alone."""
    run = [block for block in blocks(page) if block.language in ("bash", "python")]
    on_start = any(block.language == "bash" or re.search("my[_-]gaps", block.text) for block in run)
    return bool(run), on_start and page != README


ON_START = [page for page in PAGES if page != START and runnable(page) == (True, True)]
ALONE = [page for page in ALL if runnable(page) == (True, False)]


@pytest.mark.network
@pytest.mark.parametrize("page", ON_START, ids=name_of)
def test_what_a_page_tells_to_run_runs(page, started, tmp_path, monkeypatch):
    shutil.copytree(started, tmp_path, dirs_exist_ok=True)
    run_page(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", ALONE, ids=name_of)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_calls_that_are_not_run_parse(page):
    for block in blocks(page):
        if block.language == "py":
            compile(block.text, str(page), "exec")
        if block.language not in ("bash", "sh"):
            continue
        for words in block.calls():
            verb = verb_of(words)
            if verb is None:
                assert words[0] in ("--install-completion", "--show-completion", "--help"), words
                continue
            VERBS[tuple(verb)].make_context(verb[-1], words[len(verb) :])


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_options_and_settings_in_the_text_exist(page):
    known = set().union(*(options_of(words) for words in VERBS)) | {"--install-completion", "--show-completion"}
    for span in inline_code(page):
        words = span.split()
        if words[0] in PROGRAMS or words[0].endswith(".py"):
            continue
        verb = verb_of(words[1:]) if words[0] == "matfm" else None
        found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span))
        assert found <= (options_of(verb) if verb else known), (span, found)
    whole = page.read_text("utf-8")
    for key in re.findall(r"--set '?([a-z_.]+[a-z_])", whole):
        assert key == "key" or any(has_key(config, key) for config in CONFIGS), key


def test_every_command_is_called_on_a_page_and_leads_there_from_the_list():
    listed = (ROOT / "docs" / "verbs.md").read_text("utf-8")
    called = {
        tuple(verb_of(words)) for page in PAGES for block in blocks(page) for words in block.calls() if verb_of(words)
    }
    for words in VERBS:
        assert words in called, words
        assert f"[`matfm {words[0]}`](" in listed, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_of_a_page_is_toml(page, tmp_path):
    for block in blocks(page):
        if block.language == "toml":
            (tmp_path / "block.toml").write_text(block.text)
            try:
                load_toml(str(tmp_path / "block.toml"))
            except MatfmError as error:
                pytest.fail(f"{name_of(page)}:{block.line}: {error}")
