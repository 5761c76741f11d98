"""What all commands share: their arguments, and error messages instead of tracebacks."""

import argparse
import atexit
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from .runtime import checksums, escape, job_record, signals
from .runtime.errors import FULL, Changed, DataError, NoSpace, Unusable, first_of, no_space
from .runtime.reading import read_text
from .runtime.resume import Busy
from .settings.base import Settings
from .settings.yaml_files import ConfigError
from .training.ranks import LOST_STATUS, Lost

S = TypeVar("S", bound=Settings)


class Parser(argparse.ArgumentParser):
    """An argument parser whose description is the command's docstring."""

    def __init__(self, doc: str | None):
        super().__init__(
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # A shell does not expand `--images=~/photos`.
        self.register("type", Path, lambda text: Path(os.path.expanduser(text)))

    def path(self, name: str, help: str, **options) -> None:
        """Add a required option that is a path."""
        self.add_argument(name, type=Path, required=True, metavar="PATH", help=help, **options)

    def model(self) -> None:
        """Add --model: a model file, or a folder that holds one, such as that of a study."""
        self.add_argument(
            "--model",
            type=lambda text: model_file(Path(os.path.expanduser(text))),
            required=True,
            metavar="PATH",
            help="model.pt, or the folder of a study for the model that it recommends",
        )

    def settings(self, cls: type[Settings]) -> None:
        """Add --settings: the settings of the stage as JSON text or as a JSON file."""
        self.add_argument(
            "--settings",
            required=True,
            type=lambda text: read_settings(cls, text),
            metavar="JSON",
            help=f"{cls.__name__} as JSON text, or a JSON file such as a model's settings.json",
        )

    def checked(self, option: str, kind: Any, value: Any) -> Any:
        """Return the value of an option as the type `kind` of settings; None if it is not given.

        Ends the command if it has another type.
        """
        try:
            return None if value is None else TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            self.error(f"{option}: {escape.problem(error).removeprefix(': ')}")

    def bands(self, default: str) -> None:
        """Add --bands CHANNEL …: numbers, or names. default: what is used without it."""
        self.add_argument(
            "--bands",
            type=lambda text: int(text) if text.isdecimal() else text,
            nargs="+",
            metavar="CHANNEL",
            help="one or three channels of the images, by number from 1 or by the name that an "
            f"OME-TIFF gives, that become grey or red, green and blue (default: {default})",
        )

    def shard(self) -> None:
        """Add --shard I N: this job is number I of N jobs that share the work; default (1, 1)."""
        self.add_argument(
            "--shard",
            type=int,
            nargs=2,
            default=[1, 1],
            metavar=("I", "N"),
            help="process only the images of shard I of N, I from 1 (default: all images)",
        )

    def device(self) -> None:
        """Add --device and --workers, which say how a stage with a network runs."""
        self.add_argument(
            "--device",
            default="auto",
            choices=("auto", "cpu", "cuda", "mps"),
            help="device of the network (default auto: CUDA if there is one, else MPS, else CPU)",
        )
        self.add_argument(
            "--workers",
            type=int,
            default=0,
            help="extra processes that load images (default 0: this process loads them)",
        )


def model_file(path: Path) -> Path:
    """The path of a model file; of a folder, that of its model.pt.

    Raises ArgumentTypeError for a folder without one.
    """
    if not path.is_dir():
        return path
    file = path / "model.pt"
    if file.is_file():
        return file
    problem = f"{path}: a folder without {file.name}; "
    if not (path / "dataset.csv").is_file():
        raise argparse.ArgumentTypeError(f"{problem}expected a model file, or a study's folder")
    below = [str(one) for depth in (2, 3, 4) for one in path.glob("*/" * depth + file.name)]
    others = f"; or name one of its models: {first_of(sorted(below), 3)}" if below else ""
    raise argparse.ArgumentTypeError(
        f"{problem}to make the model that the study recommends, run "
        f"`snakemake --cores all {file} --configfile FILE`{others}"
    )


def read_settings(cls: type[S], text: str) -> S:
    """Settings from JSON text or from a JSON file. Raises ArgumentTypeError."""
    try:
        content = text if text.lstrip().startswith("{") else read_text(Path(text))
        return cls.model_validate(json.loads(content))
    except (OSError, ValueError, RecursionError) as error:
        reason = escape.problem(error) if isinstance(error, ValidationError) else error
        raise argparse.ArgumentTypeError(
            f"expected the JSON of a {cls.__name__}: {escape.terminal(str(reason))}"
        ) from error


def main(run: Callable[[], None]) -> None:
    """Run a stage and end this process; an expected error prints its message, and the status is 1.

    A stage that a signal has stopped exits with 143. If END_WITH_PARENT is set in the environment,
    the stage ends when the process that started it ends. If CHECKSUMS is set, it records what it
    has read and written (`runtime.job_record`).
    """
    for stream in (sys.stdout, sys.stderr):
        # A name of a file may hold characters that the terminal or the log cannot.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("END_WITH_PARENT"):
        signals.end_with_parent()
    # Outside of `except`, where the error would keep a stage's objects, such as loading processes.
    _end(_status(run))


def _status(run: Callable[[], None]) -> int:
    """Run a stage, print its error, and return the exit status."""
    try:
        job = job_record.begin()
        _run(run)
        job_record.finish(job) if job else job_record.note_written()
    except (DataError, ConfigError, Busy, Changed, Unusable, MemoryError, NoSpace) as error:
        return _failed(error)
    except Lost as error:
        _failed(error)
        return LOST_STATUS
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has seen enough; Python flushes again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except FileNotFoundError as error:
        return _failed(f"{error.filename}: no such file; results computed so far are kept")
    except PermissionError as error:
        return _failed(f"{error.filename}: this user may not write or read it; see `ls -ld` of it")
    except OSError as error:
        if error.errno in FULL:
            return _failed(no_space(error.filename or "results"))
        if error.filename is None:
            raise
        return _failed(f"{error.filename}: {error.strerror}; rename or move it, or check its disk")
    except signals.Stopped as stop:
        print(stop, file=sys.stderr)
        return signals.EXIT_STATUS
    return 0


def _run(run: Callable[[], None]) -> None:
    try:
        run()
    except Exception:
        # Damage of a file that was read is the better explanation.
        checksums.settle()
        raise
    finally:
        sys.stdout.flush()
    checksums.settle()


def _failed(message: object) -> int:
    # A MemoryError may have no text.
    print(escape.terminal(f"error: {str(message) or type(message).__name__}"), file=sys.stderr)
    return 1


def _end(status: int) -> NoReturn:
    """End this process as Python does, except that it destroys no object.

    For those of torch, that takes a quarter of a short stage's time, and once in some ten thousand
    stages it crashed one whose results were whole.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
