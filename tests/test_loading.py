"""Batches from worker processes: in order, whole while in use, in memory that is made once."""

import multiprocessing
import time

import pytest
import torch

from dst_cbc import loading
from dst_cbc.files import DataError
from dst_cbc.loading import AHEAD, batches


class Numbers:
    """Samples that say their key; counts those that were asked for in all processes."""

    def __init__(self):
        self.asked = multiprocessing.get_context("spawn").Value("i", 0)

    def __getitem__(self, key):
        if key < 0:
            raise DataError(f"{key}: no such sample")
        sample = torch.full((3, 2), key, dtype=torch.uint8), torch.tensor(key / 4)
        with self.asked:
            self.asked.value += 1
        return sample

    def wait_for(self, count):
        """Until `count` samples were asked for; then as long again as they took, for more."""
        begun = time.monotonic()
        while self.asked.value < count:
            assert time.monotonic() < begun + 60, f"{self.asked.value} of {count} samples"
            time.sleep(0.01)
        time.sleep(0.1 + time.monotonic() - begun)


def keys_of(count):
    """Of `count` batches of two."""
    return [[2 * number, 2 * number + 1] for number in range(count)]


def expected(keys):
    plain = Numbers()
    return [torch.stack(parts) for parts in zip(*(plain[key] for key in keys), strict=True)]


def equal(found, wanted):
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("workers, count", [(0, 5), (1, 7), (2, 11), (2, 1)])
def test_batches_are_the_stacked_samples_in_order(workers, count):
    keys = keys_of(count)
    found = 0
    for batch, wanted in zip(batches(Numbers(), keys, workers), keys, strict=True):
        assert [part.dtype for part in batch] == [torch.uint8, torch.float32]
        assert equal(batch, expected(wanted))
        found += 1
    assert found == count


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_load_ahead_and_overwrite_nothing_in_use(workers):
    """However long a step takes: all that they may load meanwhile lies elsewhere."""
    samples, keys = Numbers(), keys_of(12)
    for number, batch in enumerate(batches(samples, keys, workers)):
        # One more is the example that tells the shapes.
        ahead = min(len(keys), number + 1 + AHEAD * workers)
        samples.wait_for(1 + 2 * ahead)
        assert samples.asked.value == 1 + 2 * ahead
        assert equal(batch, expected(keys[number]))


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_made_once_and_used_in_turn(workers):
    places = []
    for images, _ in batches(Numbers(), keys_of(20), workers):
        assert images.is_shared() == bool(workers)
        places.append(images.data_ptr())
    slots = AHEAD * workers + 1
    assert len(set(places)) == slots
    assert places == [places[number % slots] for number in range(20)]


def test_what_is_pinned_is_a_copy_that_stays(monkeypatch):
    """Its way to the device may take longer than a step."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    keys = keys_of(9)
    found = list(batches(Numbers(), keys, pin=True))
    assert all(equal(batch, expected(one)) for batch, one in zip(found, keys, strict=True))


def test_no_keys_are_no_batches():
    assert list(batches(Numbers(), [], 2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_sample_raises_arrives(workers):
    loaded = batches(Numbers(), [[0, 1], [2, -3]], workers)
    assert equal(next(loaded), expected([0, 1]))
    with pytest.raises(DataError, match="-3: no such sample"):
        next(loaded)


def test_processes_that_start_anew_use_the_same_memory(monkeypatch):
    """Where forking is not the way to start them, as on macOS: the memory is handed to them."""
    real = loading.DataLoader

    def spawning(*arguments, **options):
        return real(*arguments, **options, multiprocessing_context="spawn")

    monkeypatch.setattr(loading, "DataLoader", spawning)
    keys = keys_of(4)
    for batch, wanted in zip(batches(Numbers(), keys, 1), keys, strict=True):
        assert equal(batch, expected(wanted))
