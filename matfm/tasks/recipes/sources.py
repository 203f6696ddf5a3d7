"""Fetch the file a recipe names, verify it, and read its members without extracting them."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from matfm.core.files import atomic_path, readable_os_errors, sha256_of
from matfm.errors import MatfmError, RunError
from matfm.tasks.recipes.recipe import Source
from matfm.tasks.tables import Chunk, read_table, read_text_table
from matfm.tasks.unpacking import Unpacked

_DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, IndexError, struct.error)


def default_cache() -> Path:
    """`$MATFM_CACHE`, or matfm's folder in the user's cache."""
    if "MATFM_CACHE" in os.environ:
        return Path(os.environ["MATFM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "matfm"


def fetch(source: Source, cache: Path, offline: bool = False, beside: Path | None = None) -> Path:
    """Path of the verified file. `beside` is the folder that `kind = "file"` paths are relative to.

    Raises:
        RunError: no network, no pip, a full disk, or content that does not match the recipe's sha256.
        MatfmError: `offline` and the file is not in the cache.
    """
    if source.kind == "file":
        path = (beside or Path()) / source.file
        if not path.is_file():
            raise MatfmError(f"{path} is not a file; the recipe's source.file is relative to the recipe")
    else:
        path = cache / source.sha256[:12] / source.cache_name
        if not path.is_file():
            if offline:
                raise MatfmError(
                    f"{source.cache_name} is not in the cache {cache} and --offline forbids fetching it; "
                    "run once without --offline, or pass the --cache that has it"
                )
            _download(source, path)
    found = sha256_of(path)
    if found != source.sha256:
        if source.kind != "file":
            path.unlink()
        raise RunError(
            f"{source.cache_name} has sha256 {found[:16]}… but the recipe expects {source.sha256[:16]}…; "
            "it was not used. Fetch again, and if it repeats, the source has changed: do not trust it"
        )
    return path


def _download(source: Source, path: Path) -> None:
    with readable_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fetched = _pip_download(source, Path(folder)) if source.kind == "package" else _url_download(source, folder)
            with atomic_path(path) as temporary:
                shutil.copyfile(fetched, temporary)


def _pip_download(source: Source, folder: Path) -> Path:
    """One file of the package index through pip itself, so a user's mirror and cache are honoured."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--quiet"]
    binary = "--only-binary=:all:" if source.file.endswith(".whl") else "--no-binary=:all:"
    # With its digest, pip refuses another file before it looks into it: of a source archive it would run the build.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n", "ascii")
    command += [binary, "--dest", str(folder), "--require-hashes", "--requirement", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed arguments)
    fetched = folder / source.file
    if result.returncode == 0 and fetched.is_file():
        return fetched
    if "No module named pip" in result.stderr:
        raise RunError(f"pip is missing from this Python, and {source.file} is fetched through it; install pip")
    if "No space left" in result.stderr:
        raise RunError(f"the disk is full: {source.file} could not be fetched to {folder.parent}; free space")
    errors = [line.strip() for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with code {result.returncode}"
    raise RunError(
        f"{source.file} could not be fetched ({reason}); check the network and pip's index settings, "
        "or copy the file from another machine and use --offline"
    )


def _url_download(source: Source, folder: str) -> Path:
    import pooch  # only recipes with addresses need it

    try:
        return Path(pooch.retrieve(source.url, f"sha256:{source.sha256}", source.cache_name, folder))
    except ValueError as error:
        raise RunError(f"{source.url}: {error}") from error
    except OSError as error:
        raise RunError(f"{source.url} could not be fetched ({error}); check the network") from error


def read_member(archive: Path, member: str) -> str:
    """Text of one member of a zip archive (a wheel is one); a name that ends in .gz is unpacked.

    It is read in memory and never extracted, so a name or link in the archive leads nowhere.

    Raises:
        MatfmError: there is no such member, it is a decompression bomb, encrypted, or no UTF-8 text.
        RunError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            packed = opened.getinfo(member).compress_size
            with opened.open(member) as stream:
                content = Unpacked(stream, packed, f"{member} of {archive.name}").read()
        if member.endswith(".gz"):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as unzipped:
                content = Unpacked(unzipped, packed, f"{member} of {archive.name}").read()
        return content.decode("utf-8-sig")
    except KeyError as error:
        raise MatfmError(f"{archive.name} has no member {member!r}; check `members` in the recipe") from error
    except UnicodeDecodeError as error:
        raise MatfmError(f"{member} of {archive.name} is not UTF-8 text (byte {error.start})") from error
    except MatfmError:
        raise
    except (*_DAMAGED, ValueError, OverflowError) as error:
        raise RunError(f"{archive} is not a readable archive: {error}; delete it and fetch again") from error
    except (NotImplementedError, RuntimeError) as error:  # a method of compression that is not known, or a password
        raise MatfmError(f"{member} of {archive.name} cannot be unpacked: {error}") from error


def read_member_table(file: Path, member: str) -> Chunk:
    """A table inside an archive, or the file itself where it is a table (its name is the member then)."""
    if zipfile.is_zipfile(file):
        return read_text_table(io.StringIO(read_member(file, member), newline=""), member.removesuffix(".gz"))
    if member != file.name:
        raise MatfmError(f"{file.name} is a table, not an archive with a member {member!r}; name it in `members`")
    return read_table(str(file))
