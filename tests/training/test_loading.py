"""Batches from workers: in order, not overwritten while in use, in memory allocated once."""

import multiprocessing
import time

import pytest
import torch

from dst_cbc.runtime.errors import DataError
from dst_cbc.training import loading
from dst_cbc.training.loading import AHEAD, batches


class Numbers:
    """Samples filled with their key; `asked` counts the requested samples of all processes."""

    def __init__(self):
        self.asked = multiprocessing.get_context("spawn").Value("i", 0)

    def __call__(self, key):
        if key < 0:
            raise DataError(f"{key}: no such sample")
        sample = {"image": torch.full((3, 2), key, dtype=torch.uint8), "x": torch.tensor(key / 4)}
        with self.asked:
            self.asked.value += 1
        return sample

    def wait_for(self, count):
        """Wait until `count` samples were requested, then as long again for further requests."""
        begun = time.monotonic()
        while self.asked.value < count:
            assert time.monotonic() < begun + 60, f"{self.asked.value} of {count} samples"
            time.sleep(0.01)
        time.sleep(0.1 + time.monotonic() - begun)


def keys_of(count):
    """Keys of `count` batches of two samples."""
    return [[[2 * number, 2 * number + 1]] for number in range(count)]


def stacked(keys):
    plain = Numbers()
    samples = [plain(key) for key in keys]
    return {part: torch.stack([one[part] for one in samples]) for part in ("image", "x")}


def equal(found, keys):
    (batch,) = found.values()
    wanted = stacked(keys[0])
    assert batch.keys() == wanted.keys()
    return all(torch.equal(batch[part], wanted[part]) for part in wanted)


def load(keys, workers=0, samples=None, **options):
    return batches({"numbers": samples or Numbers()}, keys, workers, **options)


@pytest.mark.parametrize("workers, count", [(0, 5), (1, 7), (2, 11), (2, 1)])
def test_batches_are_the_stacked_samples_in_order(workers, count):
    keys = keys_of(count)
    found = 0
    for batch, wanted in zip(load(keys, workers), keys, strict=True):
        parts = batch["numbers"]
        assert (parts["image"].dtype, parts["x"].dtype) == (torch.uint8, torch.float32)
        assert equal(batch, wanted)
        found += 1
    assert found == count


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_load_ahead_and_overwrite_nothing_in_use(workers):
    """Workers load ahead into other slots only, however long a step takes."""
    samples, keys = Numbers(), keys_of(12)
    for number, batch in enumerate(load(keys, workers, samples)):
        # One more sample is loaded first, to find out the shapes.
        ahead = min(len(keys), number + 1 + AHEAD * workers)
        samples.wait_for(1 + 2 * ahead)
        assert samples.asked.value == 1 + 2 * ahead
        assert equal(batch, keys[number])


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_made_once_and_used_in_turn(workers):
    places = []
    for batch in load(keys_of(20), workers):
        images = batch["numbers"]["image"]
        assert images.is_shared() == bool(workers)
        places.append(images.data_ptr())
    slots = AHEAD * workers + 1
    assert len(set(places)) == slots
    assert places == [places[number % slots] for number in range(20)]


def two_views(key):
    """Samples with other shapes and dtypes than `Numbers`: two views and no scalar."""
    weak = torch.full((2, 5), key, dtype=torch.int64)
    return {"weak": weak, "strong": weak.float() / 2}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streams_of_different_shapes_share_a_batch_and_may_be_short(workers):
    counts = [(2, 3), (2, 1), (1, 3), (2, 3), (2, 2), (1, 1), (2, 3), (2, 1)]
    keys = [
        [[10 * n + i for i in range(few)], [10 * n + i for i in range(more)]]
        for n, (few, more) in enumerate(counts)
    ]
    streams = {"numbers": Numbers(), "views": two_views}
    for batch, (few, more) in zip(batches(streams, keys, workers), keys, strict=True):
        assert equal({"numbers": batch["numbers"]}, [few])
        wanted = [two_views(key) for key in more]
        for part in ("weak", "strong"):
            assert torch.equal(batch["views"][part], torch.stack([one[part] for one in wanted]))


def test_a_sample_of_another_shape_is_refused_and_not_stretched():
    def sample(key):
        return {"image": torch.zeros(3 if key < 4 else 1, 2)}

    loaded = load(keys_of(4), samples=sample)
    next(loaded), next(loaded)
    with pytest.raises(ValueError, match=r"stream 'numbers': found a sample of .*\(1, 2\)"):
        next(loaded)


def test_what_is_pinned_is_a_copy_that_stays(monkeypatch):
    """The asynchronous copy to the device may take longer than a step."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    keys = keys_of(9)
    found = list(load(keys, pin=True))
    assert all(equal(batch, one) for batch, one in zip(found, keys, strict=True))


def test_no_keys_are_no_batches():
    assert list(load([], 2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_sample_raises_arrives_and_ends_all_processes(workers):
    loaded = load([[[0, 1]], [[2, -3]]], workers)
    assert equal(next(loaded), [[0, 1]])
    with pytest.raises(DataError, match=r"^-3: no such sample$"):
        next(loaded)
    # The processes leave SIGTERM to this one, whose end would wait for them.
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_processes_that_start_anew_use_the_same_memory(monkeypatch):
    """Spawned workers, as on macOS, also write into the shared memory."""
    real = loading.DataLoader

    def spawning(*arguments, **options):
        return real(*arguments, **options, multiprocessing_context="spawn")

    monkeypatch.setattr(loading, "DataLoader", spawning)
    keys = keys_of(4)
    for batch, wanted in zip(load(keys, 1), keys, strict=True):
        assert equal(batch, wanted)
