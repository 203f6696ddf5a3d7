"""Compressed data that is read in a stream, and given up where a few bytes would fill the memory."""

from __future__ import annotations

import io
from typing import IO

from matfm.errors import MatfmError

MOST_BYTES = 2**30
"""What may be unpacked at any ratio."""
MOST_RATIO = 200
"""Bytes made of one packed byte that no table has: text of chemistry packs to between a third and a twentieth."""


class Unpacked(io.RawIOBase):
    """What a stream unpacks to.

    Args:
        stream: that unpacks while it is read.
        packed: bytes of the packed data.
        name: for messages.

    Raises:
        MatfmError: while reading, at more than `MOST_BYTES` that are more than `MOST_RATIO` times the packed data.
    """

    def __init__(self, stream: IO[bytes] | io.BufferedIOBase, packed: int, name: str) -> None:
        self.stream = stream
        self.name = name
        self.left = max(MOST_BYTES, MOST_RATIO * packed)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer, of which there is no type
        """The next bytes."""
        content = self.stream.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise MatfmError(
                f"{self.name} unpacks to more than {MOST_RATIO} times its size, as a decompression bomb does; "
                "if it is none, unpack it and give that file"
            )
        buffer[: len(content)] = content
        return len(content)
