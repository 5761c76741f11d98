import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dst_cbc.resume import Busy, resume_folder

SCRIPTS = Path(__file__).parents[1] / "scripts"


def lock_of(folder):
    return folder.with_name(folder.name + ".lock")


def leave_unfinished(folder, fingerprint, content="half"):
    with pytest.raises(KeyboardInterrupt), resume_folder(folder, fingerprint) as state:
        (state / "state").write_text(content)
        raise KeyboardInterrupt


def test_unfinished_work_is_found_again(tmp_path):
    folder = tmp_path / "work"
    leave_unfinished(folder, "same")
    with resume_folder(folder, "same") as state:
        assert (state / "state").read_text() == "half"


def test_finished_work_leaves_nothing(tmp_path):
    with resume_folder(tmp_path / "deep/work", "x") as state:
        (state / "state").write_text("all")
        assert lock_of(state).is_file()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_failure_keeps_the_state_and_frees_the_lock(tmp_path):
    leave_unfinished(tmp_path / "work", "x")
    assert (tmp_path / "work/state").is_file()
    assert not lock_of(tmp_path / "work").exists()


def test_work_on_something_else_is_set_aside(tmp_path):
    leave_unfinished(tmp_path / "work", "old", "old state")
    with resume_folder(tmp_path / "work", "new") as state:
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
    """A process that was killed while it removed its finished work leaves such a folder."""
    leave_unfinished(tmp_path / "work", "old", "old state")
    (tmp_path / "work/fingerprint").unlink()
    with resume_folder(tmp_path / "work", "new") as state:
        assert not (state / "state").exists()


def test_a_second_user_of_the_state_is_told_of_the_first(tmp_path):
    with (
        resume_folder(tmp_path / "work", "x") as state,
        pytest.raises(Busy, match=f"process {os.getpid()} on {socket.gethostname()}"),
        resume_folder(state, "x"),
    ):
        pass


def test_another_live_process_is_named_and_its_state_left(tmp_path):
    folder = tmp_path / "work"
    leave_unfinished(folder, "x")
    with subprocess.Popen(["sleep", "60"]) as other:
        owner = {"host": socket.gethostname(), "pid": other.pid}
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
        pytest.raises(Busy, match=r"process 1 on node7.*delete this file"),
        resume_folder(folder, "x"),
    ):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    folder = tmp_path / "work"
    script = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from dst_cbc.resume import resume_folder\n"
        "with resume_folder(Path(sys.argv[1]), 'x') as state:\n"
        "    (state / 'state').write_text('of the dead')\n"
        "    os._exit(9)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(folder), str(SCRIPTS)], check=False)
    assert died.returncode == 9 and lock_of(folder).is_file()
    with resume_folder(folder, "x") as state:
        assert (state / "state").read_text() == "of the dead"
        assert json.loads(lock_of(folder).read_text())["pid"] == os.getpid()
    assert not lock_of(folder).exists()
