"""What Snakemake prints about the workflow before any result exists."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dst_cbc.runtime.errors import DataError

from .pages import REPOSITORY


def snakemake(*arguments: str, given: Sequence[str] = ()) -> str:
    """The output of Snakemake in a folder without results. given: files of the user, left empty."""
    with tempfile.TemporaryDirectory() as empty:
        for path in given:
            Path(empty, path).parent.mkdir(parents=True)
            Path(empty, path).touch()
        place = ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", empty]
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *place, *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise DataError(f"snakemake {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout
