"""Prediction and labeling in several jobs give the same bytes, and rerun nothing."""

import shutil

import pytest

from dst_cbc.self_training import predictions
from workflow import Project, results

ROUND1 = "6_0/dst-cbc/round1"
MADE = ("predictions.h5", "histogram.npz", "thresholds.csv", "pseudo_labels*.csv", "*.png")
TARGETS = [f"results/tiny/{ROUND1}/{name}" for name in ("pseudo_labels.csv", "histogram.npz")]


@pytest.mark.parametrize("images", [1, 255, 256, 257, 1000, 100_000])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_are_all_parts_once_in_order(images, shards):
    found = [predictions.parts_of_shard(images, i, shards) for i in range(1, shards + 1)]
    whole = list(predictions.parts_of_shard(images))
    assert [part for shard in found for part in shard] == whole
    assert len(whole) == -(-images // 256)
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Project:
    """A study without shards, in parts of 3 images: the 8 unlabeled images are three parts."""
    project = Project.create(tmp_path_factory.mktemp("shards") / "project")
    project.divide_into_parts(3)
    project.snakemake(*TARGETS)
    return project


@pytest.mark.slow
def test_scattered_over_several_jobs_it_is_the_same_and_their_number_reruns_nothing(
    whole, tmp_path
):
    project = whole.copy(tmp_path / "project")
    expected = results(project.study, *MADE)
    assert len(expected) == 2 * 2 + 3 + 8
    project.configure(shards=5)
    assert not project.jobs(*TARGETS)
    for name in expected:
        (project.study / name).unlink()
    shutil.rmtree(project.study / ROUND1 / "pseudo_labels")
    project.configure(shards=2)
    jobs = project.jobs(*TARGETS)
    assert jobs["predict_shard 6_0/supervised"] == jobs[f"predict_shard {ROUND1}"] == 2
    assert jobs[f"label_shard {ROUND1}"] == 2
    assert jobs["predict 6_0/supervised"] == 1
    project.snakemake(*TARGETS)
    assert results(project.study, *MADE) == expected
    left = [path.name for path in project.study.rglob("*of2*")]
    assert not [name for name in left if not name.endswith((".log", ".tsv"))]
    for shards in (3, 1):
        project.configure(shards=shards)
        assert not project.jobs(*TARGETS)
