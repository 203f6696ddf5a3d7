"""The notebooks run from top to bottom, and are kept small."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from documents import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
EXECUTE = "from nbclient.cli import main; main()"
"""`jupyter execute`, in a process of its own, with which the kernel and its sockets end."""


@pytest.mark.network
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    copy = shutil.copy(path, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}
    call = [sys.executable, "-c", EXECUTE, str(copy)]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_holds_nothing_of_the_machine_that_ran_it(path):
    assert path.stat().st_size < 200_000
    text = path.read_text("utf-8")
    for cell in json.loads(text)["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] in ("display_data", "execute_result") or output["name"] == "stdout"
    assert "/home/" not in text
    assert "site-packages" not in text
