"""What Snakemake prints about the workflow before any result exists."""

import subprocess
import sys
import tempfile

from dst_cbc.runtime.errors import DataError

from .pages import REPOSITORY


def snakemake(*arguments: str) -> str:
    """The output of Snakemake in an empty folder, where no result exists."""
    with tempfile.TemporaryDirectory() as empty:
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
