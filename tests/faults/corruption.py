"""Seeded damage to the files of a finished study, the jobs that read them, and what must follow."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline import Pipeline, differing

from dst_cbc.runtime.checksums import both

STUDY, DATA, MASKS = "results/tiny", "results/scenes", "results/masks"
SORTS = ("flip", "line", "digit", "delete")
TEXT = (".json", ".csv", ".txt", ".md", ".tex", ".svg", ".html", ".log", ".tsv")
NO_RESULTS = ("logs", "benchmarks", "tensorboard")
FOLDERS = ("checksums", "images", "labels", "pseudo_labels", "splits", "report", *NO_RESULTS)
"""In these folders, all files with the same ending are of one kind."""
TRAININGS = ("train", "finetune")
EXPENSIVE = (*TRAININGS, "predict", "predict_round")
"""Rules whose deleted results come back only with `--config remake=true`."""
IMAGE_READERS = {
    "labeled": TRAININGS,
    "unlabeled": ("predict", "predict_round", "finetune", "contact_sheet", "gallery"),
    "val": (*TRAININGS, "evaluate"),
    "test": ("evaluate",),
}
MASK_READERS = IMAGE_READERS | {"unlabeled": ("pseudo_labels", "contact_sheet", "gallery")}
LABEL_READERS = ("finetune", "contact_sheet", "gallery")
"""Rules that read images, masks and pseudo labels, which records do not name one by one."""


# -------------------------------------------------------------- mutations


@dataclass(frozen=True)
class Mutation:
    """A change of one file. path: below the project; seed: of the place in the file."""

    path: str
    sort: str
    seed: str

    @property
    def deletes(self) -> bool:
        return self.sort == "delete"

    @property
    def is_restorable(self) -> bool:
        """Whether Snakemake makes a deleted file again, or nothing needs it."""
        return self.deletes and not is_data(self.path)

    def apply(self, root: Path) -> None:
        """Damage the file; its time stays the same."""
        path = root / self.path
        if self.deletes:
            path.unlink()
            return
        time = path.stat().st_mtime_ns
        path.write_bytes(mutated(path.read_bytes(), self.sort, random.Random(self.seed)))
        os.utime(path, ns=(time, time))

    def __str__(self) -> str:
        return f"{self.sort} in {self.path}, at a place drawn by Random({self.seed!r})"


def mutated(content: bytes, sort: str, draw: random.Random) -> bytes:
    """Flip a bit, drop a line, or change a digit."""
    if sort == "line":
        lines = content.splitlines(keepends=True)
        del lines[draw.randrange(len(lines))]
        return b"".join(lines)
    if sort == "digit":
        at = draw.choice([place.start() for place in re.finditer(rb"[0-9]", content)])
        byte = draw.choice([digit for digit in b"0123456789" if digit != content[at]])
    else:
        at = draw.randrange(len(content))
        byte = content[at] ^ 1 << draw.randrange(8)
    return content[:at] + bytes([byte]) + content[at + 1 :]


def sorts_of(path: str, content: bytes) -> list[str]:
    """What can be done to a file."""
    is_text = path.endswith(TEXT)
    possible = {
        "flip": bool(content),
        "line": bool(content) and is_text,
        "digit": is_text and bool(re.search(rb"[0-9]", content)),
        "delete": True,
    }
    return [sort for sort in SORTS if possible[sort]]


def choose(contents: Mapping[str, bytes], seed: int, count: int) -> list[Mutation]:
    """Choose mutations: first each sort for each kind of file, then any kind, sort and file."""
    draw = random.Random(seed)
    files: dict[str, dict[str, list[str]]] = {}
    for path, content in sorted(contents.items()):
        for sort in sorts_of(path, content):
            files.setdefault(kind_of(path), {}).setdefault(sort, []).append(path)
    chosen = [(kind, sort) for kind, sorts in files.items() for sort in sorts]
    draw.shuffle(chosen)
    while len(chosen) < count:
        kind, sort = draw.choice(list(files)), draw.choice(SORTS)
        chosen.append((kind, sort if sort in files[kind] else "flip"))
    return [
        Mutation(draw.choice(files[kind][sort]), sort, f"{seed} {number}")
        for number, (kind, sort) in enumerate(chosen[:count])
    ]


def batches(
    mutations: Iterable[Mutation], touches: Callable[[str], Collection[str]], most: int = 1000
) -> list[list[Mutation]]:
    """Divide mutations so that no two of a batch touch the same file, with at most `most` each."""
    found: list[tuple[set[str], list[Mutation]]] = []
    for mutation in mutations:
        mine = touches(mutation.path)
        free = [entry for entry in found if len(entry[1]) < most and entry[0].isdisjoint(mine)]
        if not free:
            free = [(set(), [])]
            found += free
        free[0][0].update(mine)
        free[0][1].append(mutation)
    return [batch for _, batch in found]


# -------------------------------------------------------------- kinds of files


def kind_of(path: str) -> str:
    """The name of a file, or its folder and ending where a folder has many files of a kind."""
    folder = next((part for part in Path(path).parts[-2::-1] if part in FOLDERS), None)
    if folder in NO_RESULTS:
        return f"{folder}/"
    return f"{folder}/*{Path(path).suffix}" if folder else Path(path).name


def is_no_result(path: str) -> bool:
    return path.startswith(tuple(f"{STUDY}/{name}/" for name in NO_RESULTS))


def is_data(path: str) -> bool:
    return path.startswith(f"{DATA}/") and path.endswith(".png")


def is_record(path: str) -> bool:
    return Path(path).parent.name == "checksums"


def is_freed(path: str) -> bool:
    """Whether a file may be deleted: predictions of round 1 and later."""
    return "/round" in path and path.endswith(".h5")


# -------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Job:
    """A job of the study.

    command: what Snakemake runs. record: of what it read and wrote; there may be another one with
    the ending .timed.json. read: the files that both name. inputs: the files that Snakemake wants.
    """

    rule: str
    command: str
    record: str
    outputs: tuple[str, ...]
    inputs: frozenset[str]
    read: frozenset[str]

    @property
    def log(self) -> str:
        return shlex.split(self.command.partition(">> ")[2])[0]

    @property
    def target(self) -> str:
        """An output that is a file."""
        return next(path for path in self.outputs if Path(path).suffix)

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(shlex.split(self.command))


def jobs_of(pipeline: Pipeline) -> list[Job]:
    """All jobs of a finished study, an export of a model, and its use on new images."""
    root = pipeline.root
    model = str(next(root.glob(f"{STUDY}/*/supervised/model.pt")).relative_to(root))
    export = f"{Path(model).parent}/export/model.onnx"
    printed = pipeline.project.snakemake("-n", "-p", "--forceall", "all", export)
    jobs = []
    for rule, block, files, words in re.findall(
        r"^(?:local)?rule (\w+):\n((?:    .*\n)+)Shell command: CHECKSUMS='(.*?)' (.*)$",
        printed,
        re.MULTILINE,
    ):
        record, *outputs = json.loads(files)
        inputs = re.search(r"^    input: (.*)", block, re.MULTILINE)
        needed = frozenset(inputs[1].split(", ")) if inputs else frozenset()
        # An export has no record yet.
        read = {model} if rule == "export" else read_by(root, record)
        command = f"CHECKSUMS={shlex.quote(files)} {words}"
        jobs.append(Job(rule, command, record, tuple(outputs), needed, frozenset(read)))
    words = [sys.executable, "scripts/infer.py", "--model", model, "--images", DATA, "--out", MASKS]
    command = f"exec {shlex.join(words)} >> {STUDY}/logs/infer.log 2>&1"
    files = frozenset({model})
    return [*jobs, Job("infer", command, "no record", (f"{MASKS}/infer.json",), files, files)]


def read_by(root: Path, record: str) -> set[str]:
    """Paths of the files that the records of a job name as read."""
    folder, read = Path(record).parent.parent, set()
    for path in both(root / record):
        if path.is_file():
            read.update(json.loads(path.read_text())["read"])
    return {os.path.normpath(folder / name) for name in read}


@dataclass
class Study:
    """A copy of a finished study that is damaged and restored.

    whole: path -> content and time of each file below results/. outcome: of its pipeline.
    """

    pipeline: Pipeline
    jobs: list[Job]
    whole: dict[str, tuple[bytes, int]]
    outcome: dict[str, bytes]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Study:
        return cls(pipeline, jobs_of(pipeline), files_of(pipeline.root), pipeline.outcome())

    def copy(self, root: Path) -> Study:
        """A copy of a study that is not damaged."""
        before, pipeline = str(self.root), self.pipeline.copy(root)
        jobs = [replace(job, command=job.command.replace(before, str(root))) for job in self.jobs]
        return Study(pipeline, jobs, self.whole, self.outcome)

    @property
    def root(self) -> Path:
        return self.pipeline.root

    @cached_property
    def contents(self) -> dict[str, bytes]:
        return {path: content for path, (content, _) in self.whole.items()}

    def repair(self, path: str) -> None:
        """Bring back the content and the time of a file."""
        content, time = self.whole[path]
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)
        os.utime(self.root / path, ns=(time, time))

    def restore(self) -> None:
        """Undo all changes below results/."""
        now = files_of(self.root)
        for path in now.keys() - self.whole.keys():
            (self.root / path).unlink()
        for path, state in self.whole.items():
            if now.get(path) != state:
                self.repair(path)

    def differing(self) -> set[str]:
        """Paths of the results that are not as in the undisturbed run."""
        return {f"results/{path}" for path in differing(self.pipeline.outcome(), self.outcome)}

    # ---------------------------------------------------------- who makes and reads a file

    def made_by(self, job: Job) -> set[str]:
        return {
            path
            for path in self.contents
            if path in job.outputs or str(Path(path).parent) in job.outputs
        }

    @cached_property
    def maker(self) -> dict[str, Job]:
        """The job that writes a file, a folder or a record."""
        return {
            str(path): job
            for job in self.jobs
            for path in (*job.outputs, *self.made_by(job), *both(Path(job.record)))
        }

    def recorded_in(self, record: str) -> set[str]:
        """Files that a record names as written, and the pseudo labels in their folder."""
        folder = Path(record).parent.parent
        paths = {os.path.normpath(folder / name) for name in self.json(record)["wrote"]}
        return {path for path in self.contents if path in paths or str(Path(path).parent) in paths}

    def json(self, path: str) -> dict:
        return json.loads(self.contents[path])

    def readers(self, path: str) -> list[Job]:
        """Jobs that read a file; for a record, those that read one of the files that it names."""
        if is_data(path):
            rules = (IMAGE_READERS if "/images/" in path else MASK_READERS)[self.use_of(path)]
            return [job for job in self.jobs if job.rule in rules]
        folder = Path(path).parent
        if folder.name == "pseudo_labels":
            named = {str(folder), f"{folder}.csv", str(folder.parent)}
            return [job for job in self.jobs if job.rule in LABEL_READERS and job.words & named]
        read = self.recorded_in(path) if is_record(path) else {path}
        return [job for job in self.jobs if job.read & read]

    def use_of(self, path: str) -> str:
        """What an image or a mask is for: labeled, unlabeled, val or test."""
        unlabeled = next(path for path in self.contents if path.endswith(".unlabeled.txt"))
        subset, id = Path(path).parent.name, Path(path).stem
        if subset != "train":
            return subset
        return "unlabeled" if id in self.contents[unlabeled].decode().split() else "labeled"

    def run(self, job: Job) -> tuple[int, str]:
        """Run a job without Snakemake; returns its status and what it printed."""
        (self.root / job.log).unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-c", job.command], cwd=self.root, capture_output=True, text=True
        )
        return done.returncode, (self.root / job.log).read_text() + done.stdout + done.stderr

    # ---------------------------------------------------------- verify

    def verify(self) -> tuple[int, set[str], str]:
        """Status of `verify`, its lines about files, and all that it printed."""
        command = [sys.executable, "scripts/verify.py", STUDY, "--data", DATA]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        lines = set(re.findall(r"^(?:missing|changed|foreign): .*$", done.stdout, re.MULTILINE))
        return done.returncode, lines, done.stdout + done.stderr

    def verified_by(self, path: str) -> set[str]:
        """A file, and those that `verify` cannot compare while it is damaged."""
        folder = Path(path).parent
        if is_record(path):
            # A file is not read while a record in its folder is damaged.
            read = {str(folder.with_name(name)) for name in ("dataset.csv", "pseudo_labels.csv")}
            listed = (self.verified_by(one) for one in read & self.contents.keys())
            return {path, *self.recorded_in(path)}.union(*listed)
        if path == f"{STUDY}/dataset.csv":
            return {path, *filter(is_data, self.contents)}
        if Path(path).name == "pseudo_labels.csv":
            labels = str(folder / "pseudo_labels")
            return {path, *(one for one in self.contents if str(Path(one).parent) == labels)}
        return {path}

    def lines(self, mutation: Mutation) -> set[str]:
        """The lines of `verify` about a mutation."""
        path = mutation.path
        if is_no_result(path):
            return set()
        unrecorded = self.recorded_in(path) if is_record(path) else set()
        lines = {f"foreign: {one}" for one in unrecorded if one.startswith(STUDY)}
        if not mutation.deletes:
            return lines | {f"changed: {path}"}
        return lines if is_freed(path) or is_record(path) else lines | {f"missing: {path}"}

    def problems_of_verify(self, batch: Iterable[Mutation]) -> list[str]:
        """What is wrong with the lines of `verify` about mutations that do not touch each other."""
        for mutation in batch:
            mutation.apply(self.root)
        status, lines, printed = self.verify()
        self.restore()
        expected = set().union(*map(self.lines, batch))
        if lines == expected and bool(status) == bool(expected) and "Traceback" not in printed:
            return []
        return [f"verify: too many or too few: {sorted(lines ^ expected)}\n{printed}"]

    # ---------------------------------------------------------- deleted files

    def kept_from(self, path: str) -> set[str]:
        """Files that are not deleted together with a file, so that one loss explains each change.

        A job records only recorded files as read, so a deleted record changes the records of jobs
        that run in the meantime. A gallery page shows less without predictions.
        """
        if is_record(path):
            recorded = self.recorded_in(path)
            readers = [job for job in self.jobs if job.read & recorded]
            return {path, *recorded}.union(*map(self.made_by, readers))
        galleries = [job for job in self.readers(path) if job.rule == "gallery"]
        return {path}.union(*map(self.made_by, galleries if is_freed(path) else []))

    def losing(self, deleted: Iterable[str]) -> list[Job]:
        """Jobs whose results are missing."""
        lost = {path for path in deleted if not is_freed(path)}
        return [job for job in self.jobs if lost & self.made_by(job)]

    def before(self, job: Job, deleted: Iterable[str]) -> list[Job]:
        """Jobs that must make deleted files again before a job can."""
        return [
            self.maker[path]
            for path in deleted
            if path in self.maker
            and not is_record(path)
            and (path in job.inputs or job in self.readers(path))
            and not (job.rule == "gallery" and is_freed(path))
        ]

    def is_withheld(self, job: Job, deleted: Collection[str]) -> bool:
        """Whether a job runs again only with `remake`."""
        needed = self.before(job, deleted)
        return job.rule in EXPENSIVE or any(self.is_withheld(one, deleted) for one in needed)

    def repeated(self, jobs: Iterable[Job], deleted: Collection[str]) -> set[str]:
        """First outputs of jobs, and of those that must run before them."""
        found, waiting = set(), list(jobs)
        while waiting:
            job = waiting.pop()
            found.add(job.outputs[0])
            waiting += self.before(job, deleted)
        return found


def files_of(root: Path) -> dict[str, tuple[bytes, int]]:
    """Path -> content and time of each file below results/, without Snakemake's hidden ones."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted((root / "results").rglob("[!.]*"))
        if path.is_file()
    }
