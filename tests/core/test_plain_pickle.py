"""Plain data out of pickles, and nothing of a harmful one is run."""

import gzip
import io
import os
import pickle
from collections import Counter

import numpy as np
import pytest

from matfm.core.plain_pickle import read_plain_array_file, read_plain_pickle
from matfm.errors import RunError

DATA = {
    "FCD": {"mu": np.arange(3.0), "sigma": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))},
    "bits": np.array([[1, 0], [0, 1]], np.uint8),
    "counts": Counter(a=2, b=1),
    "values": [1.5, -2, "text", None, True],
    "nested": [{"x": np.array([], np.int64)}],
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_reads_what_numpy_and_python_wrote(protocol):
    read = read_plain_pickle(pickle.dumps(DATA, protocol=min(protocol, 2)), "file")
    for name in ("mu", "sigma"):
        np.testing.assert_array_equal(read["FCD"][name], DATA["FCD"][name])
        assert read["FCD"][name].dtype == DATA["FCD"][name].dtype
    np.testing.assert_array_equal(read["bits"], DATA["bits"])
    assert read["counts"] == DATA["counts"]
    assert read["values"] == DATA["values"]
    assert read["nested"][0]["x"].shape == (0,)


def test_reads_array_files_of_objects_and_of_numbers():
    for value in (np.array(DATA, dtype=object), np.arange(6.0).reshape(2, 3)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, value, allow_pickle=True, version=(1, 0))
        read = read_plain_array_file(stream.getvalue(), "file")
        if value.dtype == object:
            np.testing.assert_array_equal(read["FCD"]["mu"], DATA["FCD"]["mu"])
        else:
            np.testing.assert_array_equal(read, value)


class Harmful:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_nothing_of_a_harmful_file_is_run(tmp_path):
    mark = tmp_path / "mark"
    for call in (
        Harmful(os.mkdir, str(mark)),
        Harmful(eval, f"open({str(mark)!r}, 'w')"),
        Harmful(os.system, f"touch {mark}"),
    ):
        for protocol in (0, 2, 5):
            with pytest.raises(RunError, match="nothing of it was run"):
                read_plain_pickle(pickle.dumps({"values": call}, protocol), "file")
    assert not mark.exists()


@pytest.mark.parametrize("value", [np.array(["text"]), np.float64(1.5), {1, 2}, np.array([object()], object)])
def test_other_things_are_refused(value):
    with pytest.raises(RunError, match="file is not read"):
        read_plain_pickle(pickle.dumps(value, 2), "file")


def test_damaged_files_are_named():
    whole = pickle.dumps(DATA, 2)
    for content in (whole[: len(whole) // 2], b"", b"no pickle", gzip.compress(whole)):
        with pytest.raises(RunError, match="file is not read"):
            read_plain_pickle(content, "file")
    with pytest.raises(RunError, match="file is not read"):
        read_plain_array_file(b"no array", "file")
