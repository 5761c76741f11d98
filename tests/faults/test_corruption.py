"""Change files of a finished study, times kept: the next stage and `verify` name each of them.

Run with `make faults SEED=1 MUTATIONS=1000`. The next stage is a job that reads the file, run by
the command of Snakemake. A file that no job reads is made again. Some jobs are run by Snakemake.
"""

import random
import re

import pytest
from corruption import (
    SORTS,
    Mutation,
    Study,
    batches,
    choose,
    is_no_result,
    is_record,
    kind_of,
    mutated,
    sorts_of,
)

from conftest import MUTATIONS, SEED

TESTS = max(1, MUTATIONS // 50)
BY_SNAKEMAKE = max(1, MUTATIONS // 40)


@pytest.fixture(scope="module")
def damaged(study, tmp_path_factory) -> Study:
    """A copy of the study that tests damage and restore."""
    return study.copy(tmp_path_factory.mktemp("corruption") / "project")


@pytest.mark.parametrize("seed", range(5))
def test_a_mutation_changes_one_bit_one_digit_or_one_line(seed):
    text = b"id,pixels\na,17\nb,18\n"
    flipped, other = (mutated(text, sort, random.Random(seed)) for sort in ("flip", "digit"))
    ((old, new),) = [pair for pair in zip(text, flipped, strict=True) if pair[0] != pair[1]]
    assert (old ^ new).bit_count() == 1
    ((old, new),) = [pair for pair in zip(text, other, strict=True) if pair[0] != pair[1]]
    assert {old, new} <= set(b"0123456789")
    lines = {b"a,17\nb,18\n", b"id,pixels\nb,18\n", b"id,pixels\na,17\n"}
    assert mutated(text, "line", random.Random(seed)) in lines


def test_a_mutation_keeps_the_time_of_the_file(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("step\n1\n")
    time = path.stat().st_mtime_ns
    Mutation("history.csv", "flip", "0").apply(tmp_path)
    assert path.stat().st_mtime_ns == time and path.read_bytes() != b"step\n1\n"


def test_two_hundred_mutations_damage_every_kind_of_file_in_every_way(study):
    mutations = choose(study.contents, SEED, 200)
    assert mutations == choose(study.contents, SEED, 200)
    possible = {
        (kind_of(path), sort)
        for path, content in study.contents.items()
        for sort in sorts_of(path, content)
    }
    assert {(kind_of(one.path), one.sort) for one in mutations} == possible
    kinds = {kind for kind, _ in possible}
    assert len(kinds) >= 30 and {sort for _, sort in possible} == set(SORTS)
    assert {"model.pt", "predictions.h5", "labels/*.png", "checksums/*.json"} <= kinds


def test_verify_says_nothing_about_an_undisturbed_study(study):
    status, lines, _ = study.verify()
    assert (status, lines) == (0, set())


def mine(study: Study) -> list[Mutation]:
    """The mutations that do not delete what Snakemake makes again."""
    return [one for one in choose(study.contents, SEED, MUTATIONS) if not one.is_restorable]


def problem_of(study: Study, mutation: Mutation) -> tuple[str, str]:
    """What the next stage does about a mutation, and what is wrong with that; "" if nothing is."""
    if is_no_result(mutation.path):
        return "read by none", ""
    mutation.apply(study.root)
    readers = study.readers(mutation.path)
    job = random.Random(mutation.seed).choice(readers or [study.maker[mutation.path]])
    status, printed = study.run(job)
    # The saved state of a training that has stopped is no result.
    different = study.differing() & study.whole.keys()
    study.restore()
    if readers:
        answer, good = "named", mutation.path in printed and different <= {mutation.path}
    else:
        answer, good = "made again, same bytes", not different
    if good and bool(status) == bool(readers) and "Traceback" not in printed:
        return answer, ""
    return answer, f"{mutation}\nthen {job.rule} ends with {status}, {different} differ\n{printed}"


@pytest.mark.parametrize("number", range(TESTS))
def test_the_next_stage_and_verify_name_each_changed_file(damaged, number, mutation):
    answers, problems = {}, []
    for one in mine(damaged)[number::TESTS]:
        answers[one], problem = problem_of(damaged, one)
        problems += [problem] if problem else []
    for batch in batches(answers, damaged.verified_by):
        problems += damaged.problems_of_verify(batch)
    assert not problems, "\n\n".join(problems)
    for one, answer in answers.items():
        mutation(one, answer, damaged.lines(one))


@pytest.mark.parametrize("number", range(BY_SNAKEMAKE))
def test_snakemake_names_a_changed_file_and_its_advice_cures_it(study, tmp_path, number):
    read = [one for one in mine(study) if study.readers(one.path)]
    draw = random.Random(f"{SEED} {number}")
    one = draw.choice(read)
    copy = study.copy(tmp_path / "project")
    jobs = [job for job in copy.readers(one.path) if job.rule != "infer"]
    target = draw.choice(jobs).target
    one.apply(copy.root)
    assert copy.pipeline.run(target, "--forcerun", target) != 0, one
    printed = copy.pipeline.printed
    assert one.path in printed and "Traceback" not in printed, printed
    if advice := re.search(r"snakemake (\S+) --forcerun \1(?!\S)", printed):
        assert copy.pipeline.run(advice[1], "--forcerun", advice[1]) == 0, copy.pipeline.printed
    elif is_record(one.path):
        (copy.root / one.path).unlink()
    else:
        copy.repair(one.path)
    assert copy.pipeline.run() == 0, copy.pipeline.printed
    assert not copy.differing() - ({one.path} if is_record(one.path) else set())
