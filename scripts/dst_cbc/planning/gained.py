"""The cells of a table of gains, read from the results of its studies, finished or not."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ..data.index import Row, read_index
from ..data.records import evenly
from ..inference.confusions import read_confusions
from ..inference.paired import leave_out, resampling_groups
from ..report.figure_data import benchmark_seconds
from ..report.gain import Cell
from ..report.model_files import CHECKPOINTS, read_run
from ..report.summary import summarize
from ..settings.gain_table import GainTable
from ..training import passes
from .models import PlannedModel
from .plan import Plan, load_plan


def gain_cells(repository: Path, folder: Path, table: GainTable, subset: str) -> Iterator[Cell]:
    """Yield a cell for each checkpoint of the last model of each method, split and seed.

    repository: the folder of the Snakefile. folder: that of the table's file. subset: the subset
    whose images count. Results are read from results/ in the working folder. Raises ConfigError
    and DataError.
    """
    for name, study in table.studies.items():
        files = table.paths(name, folder)
        plan = load_plan(repository, files, table.over(name))[2]
        for model in last_models(plan):
            scenario = plan.splits[model.division].name
            place = {
                "dataset": study.dataset,
                "test": study.test,
                "scenario": table.scenarios.get(scenario, scenario),
            }
            yield from _cells(plan, model, subset, place)


def last_models(plan: Plan) -> list[PlannedModel]:
    """The last model of each method on each split and seed; those of folds are left out."""
    models = (model for model in plan.models.values() if not model.fold)
    return [*{(model.division, model.method): model for model in models}.values()]


def _cells(plan: Plan, model: PlannedModel, subset: str, place: dict[str, str]) -> Iterator[Cell]:
    split, study = plan.splits[model.division], Path("results", plan.experiment.name)
    same = {
        **place,
        "labels": len(split.labeled),
        "method": model.method,
        "seed": split.stage.seed,
        "labeled": split.labeled,
    }
    rows = {row["checkpoint"]: row for row in summarize(study, [model.path], [subset])}
    confusions, index = study / model.path / "confusions.csv", study / "dataset.csv"
    done = rows["best"]["miou"] is not None and confusions.is_file() and index.is_file()
    found = read_confusions(confusions, len(plan.dataset.classes)) if done else {}
    for checkpoint in CHECKPOINTS:
        if (checkpoint, subset) not in found:
            yield Cell(checkpoint=checkpoint, **same)
            continue
        of, known = found[checkpoint, subset], _index(index)
        groups = resampling_groups(of.ids, known, plan.dataset.group)
        yield Cell(
            checkpoint=checkpoint,
            images=of.ids,
            points=leave_out(of.matrices, groups),
            steps=rows[checkpoint]["steps"],
            passes=_passes(plan, model, known),
            core_minutes=_core_minutes(plan, study, model),
            **same,
        )


_index = lru_cache(maxsize=1)(read_index)


def _chain(model: PlannedModel) -> dict[str, PlannedModel]:
    """A model and all models that it was made from, by path."""
    found: dict[str, PlannedModel] = {}
    waiting = [model]
    while waiting:
        one = waiting.pop()
        if one.path not in found:
            found[one.path] = one
            waiting += [before for before in (one.previous, one.labeled_by) if before]
    return found


def _passes(plan: Plan, model: PlannedModel, known: dict[str, Row]) -> float:
    """Work of a model's whole chain, see `training.passes`, in forward passes of one crop."""
    split = plan.splits[model.division]
    shown = [known[id] for id in evenly(split.unlabeled, passes.MOST_SIZES) if id in known]
    sizes = [(row.height, row.width) for row in shown]
    work = 0
    for one in _chain(model).values():
        unlabeled = len(split.unlabeled) if one.learns_unlabeled else 0
        network = plan.experiment.network
        work += passes.of_model(one.settings, network, len(split.labeled), unlabeled, sizes)
    height, width = model.settings.train.crop
    return work / (height * width)


def _core_minutes(plan: Plan, study: Path, model: PlannedModel) -> float | None:
    """Minutes of all trainings and predictions of a chain, times the cores that each may use."""
    chain = _chain(model).values()
    runs = [read_run(study / one.path / "run.json") for one in chain]
    if None in runs:
        return None
    seconds = sum(run["seconds"] for run in runs if run)
    for one in chain:
        if one.labeled_by:
            name = one.labeling("predict", ".tsv")
            path = study / "benchmarks" / name
            seconds += benchmark_seconds(path) if path.is_file() else 0
    cores = plan.experiment.compute_threads + plan.experiment.workers
    return seconds * cores / 60
