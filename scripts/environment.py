"""Make the virtual environment, once, and again when a file requirements* changes.

It checks Python, venv and disk space first. It runs on any Python 3, so that it can report one
that is too old.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# In this order: the first one holds what builds a package of the second one. PyTorch is last,
# because it would install its dependencies without checking their hashes.
INSTALLED = (
    ("requirements-build.lock", ["--require-hashes", "--no-deps"]),
    ("requirements.lock", ["--require-hashes", "--no-deps", "--no-build-isolation"]),
    ("requirements-torch.txt", []),
)
STAMP = "made-from.txt"
OLDEST = (3, 11, 5)
NEEDED_GB = 9


def problems(folder):
    """Yield a message for each reason why the environment cannot be made."""
    if sys.version_info < OLDEST:
        yield (
            "this is Python {}.{}.{}, at least {}.{}.{} is needed; install it and run "
            "`make PYTHON=python3.11 …`".format(*sys.version_info[:3], *OLDEST)
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        yield "Python has no venv; on Debian and Ubuntu: apt-get install python3-venv"
    free = shutil.disk_usage(str(folder.resolve().parent)).free / 1e9
    if free < NEEDED_GB:
        yield (
            f"{free:.1f} GB are free for {folder}, about {NEEDED_GB} are needed (PyTorch with "
            "CUDA; its CPU build needs 2); free some, or see docs/guides/install.md"
        )


def content(folder):
    """What the files of INSTALLED in this folder say, as bytes."""
    return b"".join((folder / name).read_bytes() for name, _ in INSTALLED)


def is_current(folder, source):
    """Whether the environment was completely made from the files as they are now."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_bytes() == content(source)


def make(folder, source):
    """Make the environment in place of the old one."""
    shutil.rmtree(str(folder), ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for name, options in INSTALLED:
        subprocess.run([*pip, *options, "-r", str(source / name)], check=True)
    # Written last, because an interrupted installation must not count as complete.
    (folder / STAMP).write_bytes(content(source))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="VENV", help="folder of the environment")
    folder = parser.parse_args().folder
    if is_current(folder, REPOSITORY):
        return
    found = list(problems(folder))
    if found:
        sys.exit("cannot make {}:\n  {}".format(folder, "\n  ".join(found)))
    print(f"making {folder}, once; this takes some minutes", flush=True)
    make(folder, REPOSITORY)


if __name__ == "__main__":
    main()
