import errno
import os

import pytest
import torch

from dst_cbc.runtime import devices
from dst_cbc.runtime.errors import DataError, Unusable
from dst_cbc.settings.stages import Compute


def test_the_device_runs_out_of_memory_for_good():
    said = "CUDA out of memory. Tried to allocate 9.54 GiB. GPU 0 has 8 GiB.\nMore lines."
    with (
        pytest.raises(Unusable, match=r"Tried to allocate 9\.54 GiB.*Lower train\.batch"),
        devices.explain_out_of_memory("train.batch"),
    ):
        raise torch.OutOfMemoryError(said)


def test_the_machine_runs_out_of_memory_for_now():
    with (
        pytest.raises(MemoryError, match=r"tried to allocate 4000000000000000 bytes.*Lower a key"),
        devices.explain_out_of_memory("a key"),
    ):
        torch.empty(10**15)


def test_a_loading_process_that_dies_is_explained():
    said = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that …"
    with (
        pytest.raises(MemoryError, match=r"pid 7.*Either /dev/shm is too small.*workers: 0"),
        devices.explain_out_of_memory("a key"),
    ):
        raise RuntimeError(said)


def test_a_full_disk_is_not_taken_for_full_shared_memory():
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(OSError, match="No space left") as raised,
        devices.explain_out_of_memory("a key"),
    ):
        raise full
    assert raised.value is full


def test_any_other_failure_is_left_as_it_is():
    with (
        pytest.raises(RuntimeError, match=r"^shapes differ$"),
        devices.explain_out_of_memory("a key"),
    ):
        raise RuntimeError("shapes differ")


def test_the_device_is_the_first_line_and_threads_are_as_the_experiment_says(capsys):
    device = devices.prepare("cpu", Compute(compute_threads=1))
    assert device == torch.device("cpu") and torch.get_num_threads() == 1
    assert capsys.readouterr().out.startswith("device: cpu (")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="torch sees no CUDA device"):
        devices.prepare("cuda", Compute())


def test_threads_are_fixed_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    devices.limit_threads(3)
    assert {os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}
    devices.limit_threads(1)


def test_torch_is_told_to_use_large_pages_unless_the_user_has_said_otherwise(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "")
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    devices.limit_threads(1)
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    devices.limit_threads(1)
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
