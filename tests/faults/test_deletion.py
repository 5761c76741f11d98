"""Delete files of a finished study: the next starts make exactly these again, with the same bytes.

Run with `make faults SEED=1 MUTATIONS=1000`.
"""

import json
import re
from collections.abc import Collection, Sequence

import pytest
from corruption import (
    Mutation,
    Study,
    batches,
    choose,
    is_freed,
    is_no_result,
    is_record,
)

from conftest import MUTATIONS, SEED
from workflow import jobs_in

TESTS = max(1, MUTATIONS // 100)
TOGETHER = 12
"""Most files that are deleted at once."""


@pytest.mark.parametrize("number", range(TESTS))
def test_deleted_files_come_back_with_the_same_bytes(study, tmp_path, number, mutation):
    deletions = [one for one in choose(study.contents, SEED, MUTATIONS) if one.is_restorable]
    mine = batches(deletions, study.kept_from, TOGETHER)[number::TESTS]
    for place, batch in enumerate(mine):
        copy = study.copy(tmp_path / str(place))
        for part in batches(batch, copy.verified_by):
            assert not copy.problems_of_verify(part)
        answers = delete(copy, batch)
        for one in batch:
            mutation(one, answers[one.path], copy.lines(one))


def delete(study: Study, batch: Sequence[Mutation]) -> dict[str, str]:
    """Delete files, start twice as a user would; returns what has become of each file."""
    deleted = {one.path for one in batch}
    for one in batch:
        one.apply(study.root)
    freed, records = set(filter(is_freed, deleted)), set(filter(is_record, deleted))
    lost = study.losing(deleted)
    withheld = [job for job in lost if study.is_withheld(job, deleted)]
    missing = freed | {path for job in withheld for path in study.made_by(job) & deleted}

    made, printed = start(study)
    cheap = [job for job in lost if job not in withheld]
    assert made == sorted(study.repeated(cheap, deleted)), printed
    told = re.findall(r"^not made again: (.*?): ", printed, re.MULTILINE)
    assert sorted(study.maker[path].outputs[0] for path in told) == sorted(
        job.outputs[0] for job in withheld
    )
    assert bool(records) == ("recorded their files as they are now" in printed), printed
    require_same(study, records, missing)

    made, printed = start(study, "--config", "remake=true")
    repeated = study.repeated(withheld, missing)
    assert made == sorted(repeated), printed
    gone = {path for path in freed if study.maker[path].outputs[0] not in repeated}
    require_same(study, records, gone)
    assert not study.pipeline.project.jobs()
    return {path: what_became_of(path, missing, gone) for path in deleted}


def start(study: Study, *arguments: str) -> tuple[list[str], str]:
    """First outputs of the jobs that a start runs, and what it prints."""
    assert study.pipeline.run(*arguments) == 0, study.pipeline.printed
    printed = study.pipeline.printed
    blocks = [block for rule, block in jobs_in(printed) if rule != "all"]
    outputs = (re.search(r"^    output: ([^,\n]*)", block, re.MULTILINE) for block in blocks)
    return sorted(output[1] for output in outputs if output), printed


def require_same(study: Study, records: Collection[str], missing: Collection[str]) -> None:
    """Require the bytes of the undisturbed run, without the missing files.

    A record that was written anew names as read what Snakemake calls inputs.
    """
    assert not any((study.root / path).exists() for path in missing)
    assert study.differing() - set(records) == set(missing)
    for record in records:
        wrote = json.loads((study.root / record).read_bytes())["wrote"]
        assert wrote == study.json(record)["wrote"] or record.endswith(".timed.json")


def what_became_of(path: str, missing: Collection[str], gone: Collection[str]) -> str:
    if path in gone:
        return "stays deleted"
    if is_no_result(path):
        return "needed by none"
    if is_record(path):
        return "recorded again"
    return "remade if asked, same bytes" if path in missing else "made again, same bytes"
