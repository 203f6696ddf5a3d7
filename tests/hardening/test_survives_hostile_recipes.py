"""Recipes and packages from strangers: nothing is extracted, deleted or run, and no archive fills the memory."""

import functools
import gzip
import hashlib
import io
import stat
import zipfile

import pytest

from matfm import MatfmError
from matfm.tasks import unpacking
from matfm.tasks.recipes import sources
from matfm.tasks.recipes.recipe import Source, load_recipe
from matfm.tasks.tuning.search_space import read_space

TABLE = b"formula,gap\nFe2O3,2.2\nGaN,3.4\n"
RECIPE = """name = "own"
title = "Own"
version = "1"
kind = "composition"
rows = 2
license = "MIT"
citation = ["Nobody (2026)"]
{more}
[source]
kind = "file"
file = "own.zip"
sha256 = "{digest}"
[[tables]]
members = {{ all = "{member}" }}
input = "formula"
columns = [{{ from = "gap", name = "gap", property = "band_gap", unit = "eV" }}]
"""


@pytest.fixture
def build(trained, tmp_path):
    """Build a recipe of an archive with these members; the summary or the error. Returns what is left behind too."""

    def run(members, member="t.csv", change=lambda content: content):
        folder = tmp_path / "recipe"
        folder.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        content = change(buffer.getvalue())
        (folder / "own.zip").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (folder / "own.toml").write_text(RECIPE.format(more="", digest=digest, member=member))
        built = (tmp_path / "built").exists()
        found = trained.call("data", "build", folder / "own.toml", "--out", tmp_path / "built")
        assert sorted(path.name for path in tmp_path.iterdir()) in (["recipe"], ["built", "recipe"])
        assert sorted(path.name for path in folder.iterdir()) == ["own.toml", "own.zip"]
        if isinstance(found, MatfmError):
            assert (tmp_path / "built").exists() == built
            return str(found)
        return found

    return run


def test_survives_a_zip_bomb_in_a_package(build, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2**20)
    assert build([("t.csv", TABLE)])["rows"] == 2
    bomb = b"formula,gap\n" + b"GaN,1\n" * 2**21
    assert "decompression bomb" in build([("t.csv", bomb)])
    assert "decompression bomb" in build([("t.csv.gz", gzip.compress(bomb, mtime=0))], "t.csv.gz")


def test_survives_path_traversal_in_a_package(build, tmp_path):
    evil = [("../../evil.csv", TABLE), ("/etc/evil.csv", TABLE), ("t.csv", TABLE)]
    assert build(evil)["rows"] == 2
    assert not (tmp_path.parent / "evil.csv").exists()
    (tmp_path / "built" / "summary.json").unlink()
    assert build(evil, "../../evil.csv")["rows"] == 2  # read from the archive, and from nowhere else


def test_survives_a_symbolic_link_in_a_package(build):
    link = zipfile.ZipInfo("t.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "has no column 'formula'; its columns are '/etc/passwd'" in build([(link, b"/etc/passwd")])


def test_survives_damaged_and_encrypted_archives(build):
    def encrypted(content):  # bit 0 of the flags, in both headers
        local, central = bytearray(content), content.index(b"PK\x01\x02")
        local[6] |= 1
        local[central + 8] |= 1
        return bytes(local)

    def flipped(content):
        return content[:60] + bytes([content[60] ^ 0xFF]) + content[61:]

    assert "cannot be unpacked" in build([("t.csv", TABLE)], change=encrypted)
    assert "is not a readable archive" in build([("t.csv", TABLE * 50)], change=flipped)
    build([("t.csv", TABLE)], change=lambda content: content[:-30])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", "../../.ssh/"),
        ("sha256", "A" * 64),
        ("file", ".."),
        ("name", "--index-url=http://evil"),
        ("name", "evil @ https://evil/x.whl"),
        ("version", "1\n--extra-index-url http://evil"),
    ],
)
def test_survives_a_recipe_that_reaches_out_of_the_cache_or_into_the_options_of_pip(key, value):
    values = {"sha256": "0" * 64, "name": "somepackage", "version": "1.0", "file": "somepackage-1.0.whl", key: value}
    with pytest.raises(MatfmError, match=r"source\.|source names"):
        Source("package", **values)


def test_survives_a_package_that_is_not_the_one_the_recipe_means(monkeypatch, tmp_path):
    """Pip is told the digest, and so refuses another file before it looks into it."""
    asked = []

    def pip(command, **_):
        with open(command[command.index("--requirement") + 1]) as lines:
            asked.extend((command, lines.read()))
        return sources.subprocess.CompletedProcess(command, 1, "", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")

    monkeypatch.setattr(sources.subprocess, "run", pip)
    wanted = Source("package", "1" * 64, "somepackage", "1.0", "somepackage-1.0.tar.gz")
    with pytest.raises(MatfmError, match="DO NOT MATCH"):
        sources.fetch(wanted, tmp_path)
    assert asked[1] == f"somepackage==1.0 --hash=sha256:{'1' * 64}\n"
    assert "--require-hashes" in asked[0]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_survives_a_corrupted_download_cache(monkeypatch, tmp_path, damage):
    """The damaged file is dropped, so that the next call fetches it again; the command that found it says so."""
    content = b"content of a package" * 100
    wanted = Source("package", hashlib.sha256(content).hexdigest(), "somepackage", "1.0", "somepackage-1.0.whl")

    def pip(command, **_):
        with open(f"{command[command.index('--dest') + 1]}/{wanted.file}", "wb") as file:
            file.write(content)
        return sources.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", pip)
    path = sources.fetch(wanted, tmp_path)
    path.write_bytes(content[:-7] if damage == "truncated" else b"d" + content[1:])
    with pytest.raises(MatfmError, match="it was not used"):
        sources.fetch(wanted, tmp_path)
    assert sources.fetch(wanted, tmp_path).read_bytes() == content


RECURSIVE = {
    "extends itself": 'extends = "own.toml"\n',
    "is merged into itself": (
        'name = "own"\ntitle = "x"\nversion = "1"\nkind = "composition"\nrows = 1\nlicense = "x"\ncitation = ["x"]\n'
        '[merge]\nparts = [{ recipe = "PATH" }]\n'
    ),
    "is nested deeply": "a = " + "[" * 50_000,
    "has a number of 5,000 digits": "rows = " + "9" * 5_000,
    "has no tables": "tables = 3\n",
    "has columns that are none": '[[tables]]\ncolumns = "abc"\n',
    "has tables in tables": "tables = [[[]], 3]\n",
    "is no UTF-8": b"name = '\xff'",
}


@pytest.mark.parametrize("what", RECURSIVE)
def test_survives_a_recipe_that(what, tmp_path):
    path, text = tmp_path / "own.toml", RECURSIVE[what]
    path.write_bytes(text if isinstance(text, bytes) else text.replace("PATH", str(path)).encode())
    with pytest.raises(MatfmError, match=r"own\.toml"):
        load_recipe(str(path))


def test_survives_a_merge_that_names_a_column_that_is_not_there(tmp_path):
    path = tmp_path / "own.toml"
    text = RECURSIVE["is merged into itself"].replace('"PATH" }', '"elasticity", labels = ["thickness"] }')
    path.write_text(text)
    with pytest.raises(MatfmError, match="elasticity has no column 'thickness'"):
        load_recipe(str(path)).column_units()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"fit.dropout": {"low": 0.0, "high": float("inf"), "step": 0.1}}, "high is no finite number"),
        ({"fit.dropout": {"low": 0.0, "high": 1e308, "step": 1e-308}}, "whole steps"),
        (functools.reduce(lambda inner, _: {"a": inner}, range(2_000), {}), "nested too deeply"),
    ],
)
def test_survives_a_search_space_that_has_no_end(space, message):
    with pytest.raises(MatfmError, match=message):
        read_space(space, "space.toml")
