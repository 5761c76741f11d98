"""Kill runs at many points; the final results must have the same bytes as an undisturbed run.

Run with `make faults SEED=1 COUNT=60`. Most kills happen at a counted event (the n-th write,
rename, step, image, …), so that they can be reproduced; a few happen at random moments.
"""

import os
import random
import signal
import time

import pytest
from pipeline import WRITING, Pipeline, choose, deal, differing, place_of

from conftest import COUNT, SEED

TESTS = max(2, COUNT // 6)
WORKERS = (0, 2) if COUNT >= 60 else (2,)


def writing_places(catalogue) -> set[tuple[str, str]]:
    return {
        place_of(*event) for event in catalogue if event[1] in WRITING and event[0] != "snakemake"
    }


def test_sixty_kills_hit_every_writing_place(finished):
    catalogue = finished.catalogue()
    places = writing_places(catalogue)
    chosen = choose(catalogue, SEED, 60)
    hit = {place_of(one.job, one.kind, one.place) for one in chosen if one.kind in WRITING}
    assert hit == places and len(places) >= 40
    assert {job for job, _ in places} - {"any"} == {
        "draw_digits", "check_data", "split", "train of round 0", "evaluate of round 0", "predict",
        "thresholds", "pseudo_labels", "train of round 1", "evaluate of round 1", "summarize",
        "tables", "figures", "contact_sheet", "gallery", "recommend",
    }  # fmt: skip


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("number", range(TESTS))
def test_runs_killed_at_counted_points_end_in_the_same_bytes(
    finished, tmp_path, case, number, workers
):
    runs = deal(choose(finished.catalogue(), SEED, COUNT))
    for faults in runs[number::TESTS]:
        pipeline = Pipeline.create(tmp_path / faults[0].id, workers=workers)
        pipeline.arm(faults)
        pipeline.finish(len(faults) + 1)
        assert pipeline.met() == {fault.id for fault in faults}, "a fault did not happen"
        assert differing(pipeline.outcome(), finished.outcome()) == []
        for f in faults:
            name = f"kill {f.victim} at {f.kind} {f.n} of {f.place} in {f.job}"
            case(name, "same bytes", workers, pipeline.starts)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("number", range(max(1, COUNT // 20)))
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(
    finished, tmp_path, case, number, workers
):
    draw = random.Random(f"{SEED} {number} {workers}")
    pipeline = Pipeline.create(tmp_path / "project", workers=workers)
    pipeline.arm([])
    killed = 0
    for _ in range(3):
        snakemake = pipeline.start()
        time.sleep(draw.uniform(2, 12))
        bites = snakemake.poll() is None
        if bites:
            os.killpg(snakemake.pid, signal.SIGKILL)
        pipeline.recover(snakemake.wait())
        killed += bites
    assert killed, "every kill came too late"
    pipeline.finish(1)
    assert differing(pipeline.outcome(), finished.outcome()) == []
    case(
        f"{killed} kills of all at random moments, run {number}", "same bytes", workers, 1 + killed
    )
