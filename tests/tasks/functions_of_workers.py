"""What the tests of worker processes let them do; light, for every worker imports it."""

import time

from matfm.errors import MatfmError


def sleepy_lengths(cells):
    time.sleep(float(cells[0]) / 1000)
    return [len(cell) for cell in cells]


def shout(cells):
    return [cell.upper() for cell in cells]


def picky(cells):
    for cell in cells:
        if cell == "bad":
            raise MatfmError("it is bad")
        if cell == "bug":
            raise ZeroDivisionError("a bug")
    return cells


def fails_on_many(cells):
    if len(cells) > 1:
        raise MatfmError("too many")
    return cells
