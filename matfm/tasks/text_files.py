"""Text files in UTF-8, gzipped too, as open text; what is wrong with one is one sentence."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from matfm.errors import MatfmError
from matfm.tasks.unpacking import Unpacked

_BLOCK = 1 << 17


@contextmanager
def open_text(path: str | None) -> Iterator[IO[str]]:
    """The text of a file, unpacked where its name ends in .gz; None is standard input. Ends of lines stay as they are.

    Raises:
        MatfmError: also from inside: it is not UTF-8, not a complete gzip file, or cannot be read.
    """
    named = "standard input" if path is None else path
    try:
        if path is None:
            yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        elif path.endswith(".gz"):
            with gzip.open(path, "rb") as packed:
                unpacked = Unpacked(packed, Path(path).stat().st_size, path)
                yield io.TextIOWrapper(io.BufferedReader(unpacked, _BLOCK), encoding="utf-8-sig", newline="")
        else:
            with open(path, encoding="utf-8-sig", newline="") as text:  # noqa: PTH123 (a name as it was given)
                yield text
    except UnicodeDecodeError as error:
        raise MatfmError(f"{named} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MatfmError(f"{named} is not a complete gzip file: {error}") from error
    except OSError as error:
        raise MatfmError(f"{named} cannot be read: {error.strerror or error}") from error
