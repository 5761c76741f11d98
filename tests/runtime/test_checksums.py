import json
import os
from pathlib import Path

import pytest

from dst_cbc.runtime import checksums, files, job_record
from dst_cbc.runtime.checksums import read_record, record_of, recorded
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256, sha256_file
from dst_cbc.runtime.job_record import Job, unwritten, write
from dst_cbc.runtime.reading import read_ids, read_json
from dst_cbc.runtime.tables import read_csv

CONTENT = {"metrics.json": '{"miou": 61.5}\n', "ids.txt": "a\nb\n", "rows.csv": "id,miou\na,61.5\n"}
READERS = {
    "metrics.json": read_json,
    "ids.txt": read_ids,
    "rows.csv": lambda path: read_csv(path, ["id"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of results, made by one job that is recorded."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/study/model")
    folder.mkdir(parents=True)
    for name, text in CONTENT.items():
        (folder / name).write_text(text)
    outputs = [folder / name for name in CONTENT]
    write(Job(record_of(outputs[0]), outputs, "evaluate", ""), {})
    return folder


def change(path: Path, content: bytes) -> None:
    """Change a file and keep its time."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_record_has_the_sha256_of_what_a_job_read_and_wrote(folder):
    source, made = folder / "metrics.json", folder / "table/table.tex"
    outside = Path("lists/mine.txt")
    for path, text in ((made, "%"), (outside, "a\n")):
        path.parent.mkdir()
        path.write_text(text)
    settings = job_record.digest_of_settings('{"title": "x"}')
    job = Job(record_of(made), [made], "tables", settings)
    write(job, {path: checksums.sha256_of(path) for path in (source, outside)})
    path = folder / "table/checksums/table.tex.timed.json"
    content = json.loads(path.read_text())
    assert content.pop("sha256") == sha256(json.dumps(content, sort_keys=True).encode())
    assert content == {
        "job": "tables",
        "settings": sha256(b'{"title": "x"}'),
        "read": {
            "../metrics.json": sha256(CONTENT["metrics.json"].encode()),
            "../../../../lists/mine.txt": sha256(b"a\n"),
        },
        "wrote": {"table.tex": sha256(b"%")},
    }


def test_files_with_run_times_do_not_change_the_other_record(folder):
    def made(seconds):
        for name in ("model.pt", "run.json"):
            (folder / name).write_text(name if name == "model.pt" else seconds)
        outputs = [folder / "model.pt", folder / "run.json"]
        write(Job(record_of(outputs[0]), outputs, "train", ""), {})
        names = ("model.pt.json", "model.pt.timed.json")
        return [(folder / "checksums" / name).read_bytes() for name in names]

    (one, one_timed), (other, other_timed) = made("1"), made("2")
    assert one == other and one_timed != other_timed
    assert recorded(folder / "run.json") == (
        folder / "checksums/model.pt.timed.json", sha256(b"2"),
    )  # fmt: skip


@pytest.mark.parametrize("name", CONTENT)
def test_a_changed_file_is_refused_by_its_reader_with_both_ways_on(folder, name):
    path = folder / name
    READERS[name](path)
    change(path, path.read_bytes().replace(b"a", b"b").replace(b"61.5", b"61.6"))
    with pytest.raises(DataError) as refusal:
        READERS[name](path)
    said = str(refusal.value)
    assert said.startswith(f"{path}: changed since it was made: found SHA-256 ")
    assert f"snakemake {path} --forcerun {path}" in said
    assert f"python scripts/verify.py --accept {path}" in said


def test_an_accepted_file_is_read_and_has_a_new_time(folder):
    path = folder / "metrics.json"
    change(path, b'{"miou": 70}')
    os.utime(path, (0, 0))
    checksums.accept(path)
    assert read_json(path) == {"miou": 70} and path.stat().st_mtime > 1e9
    assert read_record(record_of(path)).accepted == ["metrics.json"]
    with pytest.raises(DataError, match="no job has recorded"):
        checksums.accept(record_of(path))


def test_a_file_that_no_job_recorded_is_read(folder):
    path = folder / "mine.json"
    path.write_text("{}")
    assert read_json(path) == {} and recorded(path) is None


@pytest.mark.parametrize("bit", range(0, 400, 7))
def test_a_damaged_record_is_found(folder, bit):
    path = record_of(folder / "metrics.json")
    content = bytearray(path.read_bytes())
    content[bit * 3 % len(content)] ^= 1 << bit % 8
    change(path, bytes(content))
    os.utime(path.parent)
    try:
        found = read_record(path)
    except DataError as error:
        assert str(path) in str(error) and "delete it" in str(error)
    else:  # a changed space
        assert found == read_record_of(CONTENT)


def read_record_of(content):
    wrote = {name: sha256(text.encode()) for name, text in content.items()}
    return checksums.Checksums("evaluate", "", {}, wrote)


def test_a_record_that_another_job_removes_at_this_moment_is_no_error(folder):
    gone = folder / "checksums/table.csv.timed.json"
    # A link to nothing is listed and cannot be opened, like a file that goes in between.
    gone.symlink_to("nowhere")
    assert list(checksums.records_in(folder)) == [record_of(folder / "metrics.json")]


def test_a_large_file_is_compared_while_it_is_used(folder, monkeypatch):
    monkeypatch.setattr(checksums, "SLOW", 1)
    path = folder / "metrics.json"
    change(path, b'{"miou": 70.0}')
    assert read_json(path) == {"miou": 70}
    with pytest.raises(DataError, match="changed since it was made"):
        checksums.settle()
    checksums.settle()


def test_a_folder_of_pngs_is_recorded_by_their_names(folder):
    labels = folder / "pseudo_labels"
    (labels / "a").mkdir(parents=True)
    for name in ("b.png", "a/c.png", ".snakemake_timestamp", "manifest.csv"):
        (labels / name).write_text(name)
    write(Job(record_of(labels), [labels], "pseudo_labels", ""), {})
    assert read_record(record_of(labels)).wrote == {
        "pseudo_labels": sha256(b"a/c.png\nb.png"),
        "pseudo_labels/manifest.csv": sha256(b"manifest.csv"),
    }
    (labels / "b.png").write_text("other content is the manifest's matter")
    assert checksums.digest_of_names(labels) == sha256(b"a/c.png\nb.png")
    change(labels / "manifest.csv", b"other")
    with pytest.raises(DataError, match=r"manifest\.csv: changed"):
        checksums.sha256_of(labels / "manifest.csv")


def test_a_joined_result_has_the_sources_of_its_shards(folder):
    """So the record does not depend on the number of shards."""
    shard, joined = folder / "predictions.1of2.h5", folder / "predictions.h5"
    source = folder / "ids.txt"
    for path in (shard, joined):
        path.write_text("pixels")
    job = Job(record_of(shard), [shard], "predict", "")
    write(job, {source: checksums.sha256_of(source)})
    job = Job(record_of(joined), [joined], "predict", "")
    write(job, {shard: checksums.sha256_of(shard)})
    assert read_record(record_of(joined)).read == {"ids.txt": sha256(b"a\nb\n")}
    assert not record_of(shard).exists()


@pytest.fixture
def started(folder, monkeypatch):
    """Function that starts a job with a text of settings; it reads ids.txt and writes out.csv."""

    def start(settings):
        out = folder / "out.csv"
        monkeypatch.setenv("CHECKSUMS", json.dumps([str(record_of(out)), str(out)]))
        monkeypatch.setattr("sys.argv", ["scripts/thresholds.py", "--settings", settings])
        monkeypatch.setattr(checksums, "_read", {})
        return job_record.begin()

    return start


def finish(folder, job):
    read_ids(folder / "ids.txt")
    (folder / "out.csv").write_text("x\n")
    job_record.finish(job)


def test_a_job_records_what_its_readers_have_read(folder, started):
    finish(folder, started("{}"))
    found = read_record(record_of(folder / "out.csv"))
    assert (found.job, found.settings) == ("thresholds", sha256(b"{}"))
    assert found.read == {"ids.txt": sha256_file(folder / "ids.txt")}
    assert found.wrote == {"out.csv": sha256(b"x\n")}
    assert "CHECKSUMS" not in os.environ


def test_a_file_that_another_job_makes_now_leaves_the_record_of_the_earlier_one(folder):
    """A study with more rounds has more figures, and its job has another first output."""
    for names in (["rows.csv"], ["metrics.json", "ids.txt"]):
        outputs = [folder / "new.svg", *(folder / name for name in names)]
        outputs[0].write_text("<svg/>")
        write(Job(record_of(outputs[0]), outputs, "figures", ""), {})
        for path in outputs:
            assert recorded(path) == (record_of(outputs[0]), sha256_file(path))
    assert not record_of(folder / "metrics.json").exists()


def test_only_the_records_that_are_missing_are_unwritten(folder):
    for name in ("model.pt", "run.json"):
        (folder / name).write_text(name)
    model, run = folder / "model.pt", folder / "run.json"
    both = Job(record_of(model), [model, run], "train", "")
    one = Job(record_of(run), [run], "train", "")
    names = ["model.pt.json", "model.pt.timed.json"]
    assert [path.name for path in unwritten(both)] == names
    assert [path.name for path in unwritten(one)] == ["run.json.timed.json"]
    write(both, {})
    assert unwritten(both) == []
    kept, lost = (folder / "checksums" / name for name in names)
    before = lost.read_bytes()
    os.utime(kept, (1000, 1000))
    lost.unlink()
    write(both, {}, unwritten(both))
    assert (kept.stat().st_mtime, lost.read_bytes()) == (1000, before)


def test_without_the_variable_nothing_is_recorded(monkeypatch):
    monkeypatch.delenv("CHECKSUMS", raising=False)
    assert job_record.begin() is None


def test_a_repeated_job_keeps_its_record_and_another_one_removes_it(folder, started):
    record = record_of(folder / "out.csv")
    finish(folder, started("{}"))
    started("{}")
    assert record.exists()
    started('{"alpha": 1}')
    assert not record.exists()
    finish(folder, started("{}"))
    change(folder / "ids.txt", b"a\nc\n")
    with pytest.raises(DataError, match=r"ids\.txt: changed"):
        started("{}")
    # So the job is known to be a repetition once the list is repaired.
    assert record.exists() and checksums.begun(record).exists()
    checksums.accept(folder / "ids.txt")
    started("{}")
    assert not record.exists()


def test_equal_bytes_get_the_time_of_their_record(folder):
    path, record = folder / "metrics.json", record_of(folder / "metrics.json")
    os.utime(record, (1000, 1000))
    path.unlink()
    path.write_text(CONTENT["metrics.json"])
    checksums.date_back(path)
    assert path.stat().st_mtime == 1000


def test_a_result_that_a_command_by_hand_has_written_is_recorded(folder, monkeypatch):
    path = folder / "metrics.json"
    monkeypatch.setattr(files, "written", set())
    monkeypatch.setattr(job_record, "written", files.written)
    files.write_text(path, '{"miou": 70}')
    with pytest.raises(DataError, match="changed since it was made"):
        read_json(path)
    job_record.note_written()
    assert read_json(path) == {"miou": 70}
    assert read_record(record_of(path)).accepted == []


def test_a_job_stops_at_its_start_if_a_record_beside_its_own_is_damaged(folder, started):
    other = record_of(folder / "metrics.json")
    other.write_text(other.read_text()[:50])
    with pytest.raises(DataError, match=r"metrics\.json\.json: this record of checksums"):
        started("{}")
    # Its own one is written again.
    other.unlink()
    finish(folder, started("{}"))
    record_of(folder / "out.csv").write_text("{}")
    finish(folder, started("{}"))
    assert read_record(record_of(folder / "out.csv")).wrote == {"out.csv": sha256(b"x\n")}
