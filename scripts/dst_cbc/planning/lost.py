"""Results that jobs have recorded and that are gone: which to make again, and in which order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import groupby
from pathlib import Path

from ..report.verification import is_freed
from ..runtime.checksums import begun, digest_of_names, place, records_in
from ..runtime.tables import read_csv

EXPENSIVE = ("train", "predict")
"""Jobs that are not repeated unless the user asks for it."""
TOLERANT = ("gallery",)
"""Jobs that read results which may be deleted only where they exist."""


@dataclass(frozen=True)
class Recorded:
    """What a job has recorded. target: a result of it that Snakemake can be asked for.

    read: files that it read, or that Snakemake needs for it. gone: results of it that are missing
    and not freed. accepted: whether a person has changed and accepted one of its results. begun:
    whether it has failed to repeat its work, for which Snakemake has deleted its results.
    """

    target: Path
    job: str
    read: frozenset[Path]
    wrote: frozenset[Path]
    gone: frozenset[Path]
    accepted: bool
    begun: bool

    @property
    def is_expensive(self) -> bool:
        return self.job in EXPENSIVE


@dataclass(frozen=True)
class Step:
    """What one run of Snakemake makes again.

    targets: of its jobs. forced: those that still exist, while other results of their job are gone.
    gone: the results. wrote: all results of its jobs.
    """

    targets: Sequence[Path]
    forced: Sequence[Path]
    gone: Sequence[Path]
    wrote: Sequence[Path]


@dataclass
class Lost:
    """The gone results of a study.

    planned: target of each job of the study -> its results. remake: whether trainings and
    predictions may be repeated. inputs: target of a job -> files that Snakemake needs for it, even
    if the job does not read them.
    """

    planned: Mapping[Path, Sequence[Path]]
    remake: bool = False
    inputs: Mapping[Path, Sequence[Path]] = field(default_factory=dict)
    _makeable: dict[Path, bool] = field(default_factory=dict)

    @cached_property
    def jobs(self) -> list[Recorded]:
        """The recorded jobs that are planned."""
        target_of = {path: target for target, paths in self.planned.items() for path in paths}
        found: dict[Path, list[Recorded]] = {}
        for folder in sorted({path.parent for path in target_of}):
            for record, checksums in records_in(folder).items():
                wrote = {place(record, name): digest for name, digest in checksums.wrote.items()}
                targets = {target_of[path] for path in wrote if path in target_of}
                if len(targets) != 1:
                    continue
                gone = {
                    path
                    for path, digest in wrote.items()
                    if (path in target_of or path.parent in target_of)
                    and _is_gone(path, digest)
                    and not is_freed(path)
                }
                state = bool(checksums.accepted), begun(record).exists()
                (target,) = targets
                read = {place(record, name) for name in checksums.read}
                read = frozenset(read.union(self.inputs.get(target, ())))
                found.setdefault(target, []).append(
                    Recorded(target, checksums.job, read, frozenset(wrote), frozenset(gone), *state)
                )
        return [_joined(parts) for parts in found.values()]

    @cached_property
    def _maker(self) -> dict[Path, Recorded]:
        return {path: job for job in self.jobs for path in job.wrote}

    @cached_property
    def gone(self) -> list[Recorded]:
        """The jobs with gone results."""
        return [job for job in self.jobs if job.gone]

    @cached_property
    def unrecorded(self) -> list[Path]:
        """Targets of planned jobs that have no record and no result."""
        recorded = {job.target for job in self.jobs}
        return [
            target
            for target, paths in self.planned.items()
            if target not in recorded and not any(path.exists() for path in paths)
        ]

    @cached_property
    def withheld(self) -> list[Recorded]:
        """Jobs with gone results that are not made again."""
        return [job for job in self.gone if not self._can_be_made(job)]

    def _can_be_made(self, job: Recorded) -> bool:
        if job.target not in self._makeable:
            allowed = self.remake or not job.is_expensive or job.begun
            self._makeable[job.target] = (
                allowed
                and not job.accepted
                and all(
                    needed is not None and self._can_be_made(needed) for needed in self._needed(job)
                )
            )
        return self._makeable[job.target]

    def _needed(self, job: Recorded) -> list[Recorded | None]:
        """Jobs that must be repeated before this one; None for a file that no job makes."""
        missing = [path for path in job.read if not path.exists()]
        if job.job in TOLERANT:
            missing = [path for path in missing if not is_freed(path)]
        makers = [self._maker.get(path) for path in missing]
        # A manifest that exists may name PNGs that are gone.
        manifests = [path for path in job.read if path.exists() and path.suffix == ".csv"]
        for path in manifests:
            maker = self._maker.get(path)
            if maker and path.with_suffix("") in maker.gone:
                makers.append(maker)
        return makers

    @cached_property
    def steps(self) -> list[Step]:
        """Runs of Snakemake, in order, that make all gone results again.

        What lies between two of them is not part of either run, so nothing else is made again:
        Snakemake would run everything behind a file that it makes, before it knows its bytes.
        """
        todo = {job.target: job for job in self.gone if self._can_be_made(job)}
        waiting = list(todo.values())
        while waiting:
            for needed in self._needed(waiting.pop()):
                if needed and needed.target not in todo:
                    todo[needed.target] = needed
                    waiting.append(needed)
        levels = self._levels(todo) if todo else {}

        def order(job: Recorded) -> tuple[int, str]:
            return levels[job.target], job.job

        return [
            _step(sorted(jobs, key=lambda job: job.target))
            for _, jobs in groupby(sorted(todo.values(), key=order), order)
        ]

    def _levels(self, todo: Collection[Path]) -> dict[Path, int]:
        """For each job, how many jobs of `todo` lie one behind the other before it."""
        before = {
            job.target: {maker.target for path in job.read if (maker := self._maker.get(path))}
            for job in self.jobs
        }
        levels: dict[Path, int] = {}
        for target in TopologicalSorter(before).static_order():
            levels[target] = max((levels[one] + (one in todo) for one in before[target]), default=0)
        return levels


def _step(jobs: Sequence[Recorded]) -> Step:
    targets = [job.target for job in jobs]
    return Step(
        targets,
        [target for target in targets if target.exists()],
        sorted(path for job in jobs for path in job.gone),
        [path for job in jobs for path in job.wrote],
    )


def _joined(parts: Sequence[Recorded]) -> Recorded:
    """One job from its record and its record of the files that hold run times."""
    return Recorded(
        parts[0].target,
        parts[0].job,
        frozenset().union(*(part.read for part in parts)),
        frozenset().union(*(part.wrote for part in parts)),
        frozenset().union(*(part.gone for part in parts)),
        any(part.accepted for part in parts),
        any(part.begun for part in parts),
    )


def _is_gone(path: Path, digest: str | None) -> bool:
    if not path.is_dir():
        return not path.exists()
    if digest_of_names(path) == digest:
        return False
    # PNGs are missing, or there are others; then the comparison with the manifest stops a training.
    manifest = path.with_suffix(".csv")
    return not manifest.is_file() or any(
        not (path / f"{row['id']}.png").is_file() for row in read_csv(manifest, ["id"])
    )
