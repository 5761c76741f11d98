from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.training.sampling import (
    Draw,
    batches,
    images_in,
    order,
    sample_generator,
    steps_until,
    torch_seed,
)

LABELED, PSEUDO = 0, 1

seeds, rounds, sizes = st.integers(0, 2**32), st.integers(0, 9), st.integers(1, 40)


def drawn(streams, stop, seed=1, round=2, start=0, joined=True):
    """The draws of each step. streams: (number of images, images in a batch)."""
    return list(batches(seed, round, [(*one, joined) for one in streams], start, stop))


def flat(found):
    """All draws of a single stream, in order."""
    return [draw for (of_stream,) in found for draw in of_stream]


@given(seeds, rounds, sizes, st.integers(0, 5))
def test_every_pass_is_a_permutation(seed, round, images, pass_):
    assert sorted(order(seed, round, LABELED, pass_, images)) == list(range(images))


@given(seeds, sizes, st.integers(1, 7), st.integers(1, 30))
def test_every_image_is_used_once_before_any_is_used_again(seed, images, share, steps):
    uses = flat(drawn([(images, share)], steps, seed))
    for i, use in enumerate(uses):
        assert use.pass_ == i // images
    for pass_ in range(len(uses) // images):
        indexes = [use.index for use in uses if use.pass_ == pass_]
        assert sorted(indexes) == list(range(images))


def test_every_pass_of_a_stream_has_an_order_of_its_own():
    uses = flat(drawn([(12, 4)], 30))
    passes = {tuple(use.index for use in uses if use.pass_ == pass_) for pass_ in range(10)}
    assert len(passes) == 10


@given(sizes, sizes, st.integers(1, 5), st.integers(0, 20), st.integers(0, 20))
def test_batches_from_a_step_are_the_tail_of_all_batches(labeled, pseudo, share, start, more):
    streams = [(labeled, share), (pseudo, share)]
    everything = drawn(streams, start + more)
    assert drawn(streams, start + more, start=start) == everything[start:]


def test_a_batch_takes_its_share_of_each_stream():
    for first, second in drawn([(3, 4), (50, 2)], 20):
        assert [draw.stream for draw in first] == [LABELED] * 4
        assert [draw.stream for draw in second] == [PSEUDO] * 2


@given(sizes, st.integers(1, 7))
def test_where_passes_are_not_joined_each_ends_with_what_is_left(images, share):
    steps = -(-images // share)
    found = [batch for (batch,) in drawn([(images, share)], 2 * steps, joined=False)]
    left = images - (steps - 1) * share
    assert [len(batch) for batch in found] == [*[share] * (steps - 1), left] * 2
    for pass_ in (0, 1):
        uses = [draw for batch in found[pass_ * steps : (pass_ + 1) * steps] for draw in batch]
        assert {draw.pass_ for draw in uses} == {pass_}
        assert [draw.index for draw in uses] == list(order(1, 2, LABELED, pass_, images))


def test_a_stream_is_the_same_whatever_the_others_are():
    alone = drawn([(7, 2)], 20)
    beside = drawn([(7, 2), (11, 3)], 20)
    assert [batch[:1] for batch in beside] == alone


def test_streams_of_equal_size_have_different_orders():
    orders = [order(1, 1, stream, 0, 100).tolist() for stream in (LABELED, PSEUDO)]
    assert orders[0] != orders[1]


def test_another_seed_round_and_pass_have_other_orders():
    orders = {
        tuple(order(seed, round, LABELED, pass_, 50))
        for seed in range(3)
        for round in range(3)
        for pass_ in range(3)
    }
    assert len(orders) == 27


def test_the_randomness_of_a_sample_follows_from_its_draw_alone():
    draw = Draw(PSEUDO, 3, 17)
    first = sample_generator(1, 2, draw).random(5)
    order(9, 9, LABELED, 0, 5)
    np.testing.assert_array_equal(first, sample_generator(1, 2, draw).random(5))


def test_every_use_of_an_image_has_its_own_randomness():
    first = {
        sample_generator(seed, round, Draw(stream, pass_, index)).random()
        for seed in range(2)
        for round in range(2)
        for stream in (LABELED, PSEUDO)
        for pass_ in range(3)
        for index in range(4)
    }
    assert len(first) == 2 * 2 * 2 * 3 * 4


@given(seeds, rounds)
def test_torch_is_seeded_anew_each_step(seed, round):
    found = [torch_seed(seed, round, step) for step in range(20)]
    assert len(set(found)) == 20
    assert all(0 <= one < 2**63 for one in found)
    assert found == [torch_seed(seed, round, step) for step in range(20)]


def test_one_image_can_fill_a_batch_by_itself():
    ((batch,),) = drawn([(1, 4)], 1)
    assert [(draw.pass_, draw.index) for draw in batch] == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_indexes_are_plain_numbers_that_a_worker_can_receive():
    for (batch,), (following,) in pairwise(drawn([(5, 2)], 6)):
        assert all(type(draw.index) is int for draw in batch)
        assert batch != following


@given(sizes, st.integers(1, 7), st.integers(0, 30), st.booleans())
def test_the_number_of_images_is_counted_as_they_are_drawn(images, share, steps, joined):
    found = drawn([(images, share)], steps, joined=joined)
    assert images_in(steps, images, share, joined) == len(flat(found))


@given(sizes, st.integers(1, 7), st.integers(1, 200), st.booleans())
def test_as_many_steps_are_needed_as_take_so_many_images_and_no_fewer(images, share, taken, joined):
    steps = steps_until(taken, images, share, joined)
    before, after = (images_in(n, images, share, joined) for n in (steps - 1, steps))
    assert before < taken <= after
