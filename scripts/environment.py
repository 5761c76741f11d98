"""Make the virtual environment of requirements.lock, once, and again when that file changes.

It checks Python, venv and disk space first. It runs on any Python 3, so that it can report one
that is too old.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
NEEDED_GB = 9


def problems(folder):
    """Yield a message for each reason why the environment cannot be made."""
    if sys.version_info < OLDEST:
        yield (
            "this is Python {}.{}, at least {}.{} is needed; install it and run "
            "`make PYTHON=python3.11 …`".format(*sys.version_info[:2], *OLDEST)
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


def is_current(folder, lock):
    """Whether the environment was completely made from this lock file."""
    made_from = folder / "requirements.lock"
    return made_from.is_file() and made_from.read_bytes() == lock.read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="VENV", help="folder of the environment")
    parser.add_argument("lock", type=Path, metavar="LOCK", help="requirements.lock")
    arguments = parser.parse_args()
    folder, lock = arguments.folder, arguments.lock
    if is_current(folder, lock):
        return
    found = list(problems(folder))
    if found:
        sys.exit("cannot make {}:\n  {}".format(folder, "\n  ".join(found)))
    print(f"making {folder} from {lock}, once; this takes some minutes", flush=True)
    shutil.rmtree(str(folder), ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", str(lock)], check=True)
    # Written last, because an interrupted installation must not count as complete.
    shutil.copyfile(str(lock), str(folder / "requirements.lock"))


if __name__ == "__main__":
    main()
