"""File names of every kind that a disk holds are used, or refused in words that any log holds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dst_cbc.data.index import read_index
from dst_cbc.runtime.files import write_text
from dst_cbc.runtime.reading import read_ids

SCRIPTS = Path(__file__).parents[2] / "scripts"
LONGEST = "ü" * 125 + "x"
"""With `.png`, 255 bytes."""


@pytest.fixture
def check(tmp_path, folder_dataset):
    """Function that makes images with these names, runs the data check, and returns its output."""

    def run(*names: bytes, out="dataset.csv"):
        for name in (*names, b"../val/v"):
            for folder in ("images", "labels"):
                path = tmp_path / folder / "train" / os.fsdecode(name + b".png")
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as file:
                    Image.fromarray(np.zeros((4, 5), np.uint8)).save(file, "PNG")
        command = [sys.executable, SCRIPTS / "check_data.py", "--data", tmp_path]
        command += ["--settings", folder_dataset.canonical(), "--out", tmp_path / out]
        # The log of a job on a cluster is often written so.
        ascii = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
        return subprocess.run(
            [*command, "--processes", "1"], capture_output=True, text=True, env=ascii
        )

    return run


def test_long_and_foreign_names_are_written_to_the_index_and_read_back(check, tmp_path):
    done = check(LONGEST.encode(), "猫 ☃".encode(), b"\xe2\x80\xa8")
    assert done.returncode == 0, done.stderr
    ids = [*read_index(tmp_path / "dataset.csv")]
    assert ids == sorted([LONGEST, "猫 ☃", "\u2028", "v"])
    write_text(tmp_path / "ids.txt", "".join(f"{id}\n" for id in ids))
    assert read_ids(tmp_path / "ids.txt") == ids


@pytest.mark.parametrize("name", [b"a\xffb", b"a\nb", b"a\\b"])
def test_a_name_that_lists_cannot_hold_is_refused_and_shown(check, name, tmp_path):
    done = check(name, b"good")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{os.fsdecode(name)!r} cannot be an id or a path" in done.stderr
    assert "good" not in done.stderr and not (tmp_path / "dataset.csv").exists()


def test_a_name_that_no_disk_holds_is_told_in_one_line(check):
    done = check(b"a", out="o" * 300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "ooo: File name too long; rename or move it, or check its disk"
    )


def test_what_a_terminal_cannot_show_is_printed_as_its_number(tmp_path):
    record = next((SCRIPTS.parent / "docs/results").glob("demo*.csv"))
    shutil.copy(record, tmp_path / "ü.csv")
    done = subprocess.run(
        [sys.executable, SCRIPTS / "compare.py", "ü.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0 and r"\xfc.csv" in done.stdout, done.stderr
