import json
import os
import socket
import subprocess
import sys
import time

import pytest

from dst_cbc.runtime import resume
from dst_cbc.runtime.errors import Changed, DataError, Spoiled, Unusable
from dst_cbc.runtime.resume import SILENCE, Busy, _lives, _started, resume_folder
from workflow import SCRIPTS


def lock_of(folder):
    return folder.with_name(folder.name + ".lock")


def leave_unfinished(folder, fingerprint, content="half"):
    with pytest.raises(KeyboardInterrupt), resume_folder(folder, fingerprint) as work:
        (work.folder / "state").write_text(content)
        raise KeyboardInterrupt


def test_unfinished_work_is_found_again(tmp_path):
    folder = tmp_path / "work"
    leave_unfinished(folder, "same")
    with resume_folder(folder, "same") as work:
        state = work.folder
        assert (state / "state").read_text() == "half"


def test_finished_work_leaves_nothing(tmp_path):
    with resume_folder(tmp_path / "deep/work", "x") as work:
        state = work.folder
        (state / "state").write_text("all")
        assert lock_of(state).is_file()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_failure_keeps_the_state_and_frees_the_lock(tmp_path):
    leave_unfinished(tmp_path / "work", "x")
    assert (tmp_path / "work/state").is_file()
    assert not lock_of(tmp_path / "work").exists()


def test_work_on_something_else_is_set_aside(tmp_path):
    leave_unfinished(tmp_path / "work", "old", "old state")
    with resume_folder(tmp_path / "work", "new") as work:
        state = work.folder
        assert not (state / "state").exists()
        assert (tmp_path / "work.stale/state").read_text() == "old state"
        assert (tmp_path / "work.stale/fingerprint").read_text() == "old"
        assert (state / "fingerprint").read_text() == "new"


def test_one_generation_is_set_aside(tmp_path):
    for fingerprint in ("first", "second", "third"):
        leave_unfinished(tmp_path / "work", fingerprint, fingerprint)
    assert (tmp_path / "work.stale/state").read_text() == "second"
    assert (tmp_path / "work/state").read_text() == "third"


def test_state_that_says_of_nothing_what_it_belongs_to_is_not_used(tmp_path):
    """A process that is killed while it removes its finished work leaves such a folder."""
    leave_unfinished(tmp_path / "work", "old", "old state")
    (tmp_path / "work/fingerprint").unlink()
    with resume_folder(tmp_path / "work", "new") as work:
        state = work.folder
        assert not (state / "state").exists()


def test_a_second_user_of_the_state_is_told_of_the_first(tmp_path):
    with (
        resume_folder(tmp_path / "work", "x", "training of a"),
        pytest.raises(
            Busy, match=rf"process {os.getpid()} on {socket.gethostname()}.*\(training of a\)"
        ),
        resume_folder(tmp_path / "work", "x"),
    ):
        pass


def test_another_live_process_is_named_and_its_state_left(tmp_path):
    folder = tmp_path / "work"
    leave_unfinished(folder, "x")
    with subprocess.Popen(["sleep", "60"]) as other:
        owner = {"host": socket.gethostname(), "pid": other.pid, "started": _started(other.pid)}
        lock_of(folder).write_text(json.dumps(owner))
        with (
            pytest.raises(Busy, match=rf"work\.lock: process {other.pid} on "),
            resume_folder(folder, "another"),
        ):
            pass
        other.kill()
    assert (folder / "state").read_text() == "half"
    assert json.loads(lock_of(folder).read_text()) == owner


def test_a_process_on_another_machine_is_believed_to_live(tmp_path):
    folder = tmp_path / "work"
    lock_of(folder).write_text(json.dumps({"host": "node7", "pid": 1}))
    with (
        pytest.raises(Busy, match=r"process 1 on node7.*not refreshed for 10 minutes"),
        resume_folder(folder, "x"),
    ):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 80,
        b'{"host": "node7", "pi',
        b"null",
        b"[1, 2]",
        b'{"host": "node7"}',
        b'{"host": 7, "pid": 1}',
        b'{"host": "node7", "pid": "one"}',
        b'{"host": "node7", "pid": -1}',
        b'{"host": "node7", "pid": 1e40}',
        b"\xff\xfe{}",
        b"[" * 100_000,
    ],
)
def test_a_damaged_lock_is_that_of_a_process_that_ended(content, tmp_path, capsys):
    """A power loss may leave an empty file, whose data never reached the disk."""
    folder = tmp_path / "work"
    leave_unfinished(folder, "x")
    lock_of(folder).write_bytes(content)
    with resume_folder(folder, "x") as work:
        assert (work.folder / "state").read_text() == "half"
        assert json.loads(lock_of(folder).read_text())["pid"] == os.getpid()
    assert "work.lock: damaged, so the process that wrote it has ended" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def dangling(path, outside):
    path.symlink_to(outside / "nowhere")


def circle(path, outside):
    path.symlink_to(path.name)


def full_folder(path, outside):
    path.mkdir()
    (path / "a").touch()


def pipe(path, outside):
    os.mkfifo(path)


def sparse(path, outside):
    with open(path, "wb") as file:
        file.truncate(1 << 33)


def of_tomorrow(path, outside):
    path.write_text('{"host": "node7", "pid": 1}')
    os.utime(path, (5e9, 5e9))


@pytest.mark.parametrize("damage", [dangling, circle, full_folder, pipe, sparse, of_tomorrow])
def test_whatever_stands_in_place_of_a_lock_stops_nothing(damage, tmp_path):
    (tmp_path / "a").mkdir()
    folder = tmp_path / "a/work"
    leave_unfinished(folder, "x")
    damage(lock_of(folder), tmp_path)
    with resume_folder(folder, "x") as work:
        assert (work.folder / "state").read_text() == "half"
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("name", ["work", "work.stale"])
@pytest.mark.parametrize("damage", [dangling, full_folder, pipe, sparse])
def test_whatever_stands_in_place_of_the_state_stops_nothing(damage, name, tmp_path):
    (tmp_path / "a").mkdir()
    if name == "work.stale":
        leave_unfinished(tmp_path / "a/work", "old")
    damage(tmp_path / "a" / name, tmp_path)
    with resume_folder(tmp_path / "a/work", "x") as work:
        assert sorted(path.name for path in work.folder.iterdir()) == ["fingerprint"]


def test_only_the_start_of_a_huge_message_is_shown(tmp_path):
    leave_unfinished(tmp_path / "work", "x")
    (tmp_path / "work/failure").write_text("a" * (3 << 20))
    with pytest.raises(Unusable) as error, resume_folder(tmp_path / "work", "x"):
        pass
    assert len(str(error.value)) < 2 << 20


def test_a_lock_is_on_the_disk_before_others_see_it(tmp_path, monkeypatch):
    happened = []
    keep, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("fsync"), keep(file)))
    monkeypatch.setattr(os, "link", lambda *names: (happened.append("link"), link(*names)))
    with resume_folder(tmp_path / "work", "x"):
        assert happened[:2] == ["fsync", "link"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_state_with_a_damaged_fingerprint_is_set_aside(content, tmp_path):
    leave_unfinished(tmp_path / "work", "x")
    (tmp_path / "work/fingerprint").write_bytes(content)
    with resume_folder(tmp_path / "work", "x") as work:
        assert not (work.folder / "state").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    folder = tmp_path / "work"
    script = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from dst_cbc.runtime.resume import resume_folder\n"
        "with resume_folder(Path(sys.argv[1]), 'x') as work:\n"
        "    (work.folder / 'state').write_text('of the dead')\n"
        "    os._exit(9)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(folder), str(SCRIPTS)], check=False)
    assert died.returncode == 9 and lock_of(folder).is_file()
    with resume_folder(folder, "x") as work:
        state = work.folder
        assert (state / "state").read_text() == "of the dead"
        assert json.loads(lock_of(folder).read_text())["pid"] == os.getpid()
    assert not lock_of(folder).exists()


def test_a_process_on_another_machine_that_fell_silent_is_given_up(tmp_path):
    folder = tmp_path / "work"
    leave_unfinished(folder, "x")
    lock_of(folder).write_text(json.dumps({"host": "node7", "pid": 1}))
    silent = time.time() - SILENCE - 1
    os.utime(lock_of(folder), (silent, silent))
    with resume_folder(folder, "x") as work:
        assert (work.folder / "state").read_text() == "half"


def test_on_a_cluster_the_end_of_a_silent_machine_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(resume, "SILENCE", 1.0)
    folder = tmp_path / "work"
    leave_unfinished(folder, "x")
    lock_of(folder).write_text(json.dumps({"host": "node7", "pid": 1}))
    with resume_folder(folder, "x") as work:
        assert (work.folder / "state").read_text() == "half"


def test_on_a_cluster_too_a_machine_that_works_on_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(resume, "SILENCE", 0.2)
    folder = tmp_path / "work"
    lock_of(folder).write_text(json.dumps({"host": "node7", "pid": 1}))
    ahead = time.time() + 600  # as if it were refreshed all the time
    os.utime(lock_of(folder), (ahead, ahead))
    with pytest.raises(Busy, match="process 1 on node7"), resume_folder(folder, "x"):
        pass


def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1}
    lock_of(tmp_path / "work").write_text(json.dumps(owner))
    with resume_folder(tmp_path / "work", "x"):
        pass


def test_a_zombie_does_not_live(tmp_path):
    with subprocess.Popen(["true"]) as other:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        owner = {"pid": other.pid, "started": _started(os.getpid())}
        assert _started(other.pid) == 0 and not _lives(owner)


@pytest.mark.parametrize("error, kept", [(Changed, ["state"]), (Spoiled, [])])
def test_only_what_may_have_come_of_files_that_changed_is_dropped_and_a_retry_is_allowed(
    error, kept, tmp_path
):
    leave_unfinished(tmp_path / "work", "x")
    with pytest.raises(error), resume_folder(tmp_path / "work", "x"):
        raise error("a mask")
    with resume_folder(tmp_path / "work", "x") as work:
        assert sorted(path.name for path in work.folder.iterdir()) == ["fingerprint", *kept]


def test_the_rest_of_a_removal_is_removed_and_not_set_aside(tmp_path):
    leave_unfinished(tmp_path / "work", "x")
    (tmp_path / "work/fingerprint").unlink()
    with resume_folder(tmp_path / "work", "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_refresh_shows_that_the_holder_lives(tmp_path):
    with resume_folder(tmp_path / "work", "x") as work:
        os.utime(work.lock, (1, 1))
        work.refresh()
        assert time.time() - work.lock.stat().st_mtime < 60


def test_a_holder_that_lost_its_work_is_stopped_and_leaves_the_new_holder_alone(tmp_path):
    folder, other = tmp_path / "work", {"host": "node7", "pid": 1}
    with pytest.raises(Busy, match="taken this work over"), resume_folder(folder, "x") as work:
        (work.folder / "state").write_text("of node7 by now")
        lock_of(folder).write_text(json.dumps(other))
        with pytest.raises(Busy):
            work.refresh()
    assert json.loads(lock_of(folder).read_text()) == other
    assert (folder / "state").read_text() == "of node7 by now"


@pytest.mark.parametrize("error", [Unusable("step 3: the loss is nan"), DataError("a.png: gone")])
def test_what_repeating_cannot_cure_is_not_repeated(error, tmp_path):
    folder, runs = tmp_path / "work", []

    def attempt(fingerprint):
        with resume_folder(folder, fingerprint):
            runs.append(fingerprint)
            raise error

    with pytest.raises(type(error)):
        attempt("same")
    with pytest.raises(Unusable) as again:
        attempt("same")
    assert runs == ["same"]
    assert str(error) in str(again.value) and str(folder / "failure") in str(again.value)
    with pytest.raises(type(error)):
        attempt("other settings")
    (folder / "failure").unlink()
    with pytest.raises(type(error)):
        attempt("other settings")
    assert runs == ["same", "other settings", "other settings"]


def test_what_may_go_better_the_next_time_is_repeated(tmp_path):
    runs = []
    for error in (OSError("disk full"), KeyboardInterrupt(), RuntimeError("?")):
        with pytest.raises(type(error)), resume_folder(tmp_path / "work", "x"):
            runs.append(1)
            raise error
    assert len(runs) == 3


def test_a_lock_that_changes_hands_during_the_look_is_left_alone(tmp_path, monkeypatch):
    folder, here = tmp_path / "work", socket.gethostname()
    ours = {"host": here, "pid": os.getpid(), "started": _started(os.getpid())}
    lock_of(folder).write_text(json.dumps({"host": here, "pid": 2**22 + 1}))

    def look(pid):
        """While the owner is found dead, a live process takes the work over."""
        lock_of(folder).write_text(json.dumps(ours))
        return pid == os.getpid()

    def grip(*_):
        raise AssertionError("the lock of a process that lives was taken away")

    monkeypatch.setattr(resume, "is_alive", look)
    monkeypatch.setattr(os, "rename", grip)
    with pytest.raises(Busy), resume_folder(folder, "x"):
        pass
    assert json.loads(lock_of(folder).read_text()) == ours


def test_of_many_that_find_a_dead_lock_one_gets_the_work(tmp_path):
    """Twelve processes start at once, three times; two never hold the work at the same time."""
    script = (
        "import os, sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from dst_cbc.runtime.resume import Busy, resume_folder\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    with resume_folder(folder, 'x') as work:\n"
        "        os.open(folder.with_name('held'), os.O_CREAT | os.O_EXCL)\n"
        "        time.sleep(0.02)\n"
        "        os.unlink(folder.with_name('held'))\n"
        "        print('held')\n"
        "except Busy:\n"
        "    print('busy')\n"
    )
    for attempt in range(3):
        folder = tmp_path / f"work{attempt}"
        lock_of(folder).write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))
        command = [sys.executable, "-c", script, str(folder), str(SCRIPTS)]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(12)]
        said = [run.communicate()[0].strip() for run in runs]
        assert all(run.returncode == 0 for run in runs)
        assert "held" in said and set(said) <= {"held", "busy"}
