"""Simulate how often intervals cover the truth, and how often each rule chooses the better model.

Writes choosing-intervals.csv and choosing.csv, the same in every run, within two minutes.
"""

import sys
from collections.abc import Iterator, Sequence

import numpy as np

from measure import SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from dst_cbc.inference.metrics import DRAWS, group_sums, mean_ious
from dst_cbc.inference.paired import difference, interval
from simulated import covered, draw, evaluate, miou, parse, quality_of, truths, width, write

CHAIN = (0.0, 2.5, 4.0, 3.0, 1.0, -1.0)
"""True points of mIoU of round 0 and five rounds, over round 0: they rise, then fall."""
GAIN, PATIENCE = 3.0, 2


def percentiles(ours: np.ndarray, theirs: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """The other usual interval of a difference: the percentiles of a bootstrap over groups."""
    sums = [group_sums(one, groups).astype(np.float64) for one in (ours, theirs)]
    count = len(sums[0])
    drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=DRAWS)
    each = [mean_ious(np.tensordot(drawn.astype(np.float64), one, 1)) for one in sums]
    return 100 * np.percentile(each[0] - each[1], [2.5, 97.5])


# --------------------------------------------------------------------------- intervals


def covering(trials: int, scenes: int, frames: int, by_image: bool = False) -> dict[str, object]:
    """How often intervals cover the truth: a difference of 0, and the mIoU of one model."""
    random = np.random.default_rng(1)
    images = draw(random, trials, scenes, frames)
    pairs = zip(*(evaluate(random, images, 0) for _ in range(2)), strict=True)
    groups = np.arange(scenes * frames) // (1 if by_image else frames)
    qualities, found = truths()
    truth = np.interp(0, qualities, found)
    ends, drawn, alone = [], [], []
    for ours, theirs in pairs:
        paired = difference(ours, theirs, groups.tolist())
        ends.append((paired.low, paired.high))
        drawn.append(percentiles(ours, theirs, groups.tolist()))
        alone.append(interval(ours, groups.tolist()))
    return {
        "images": scenes * frames,
        "scenes": scenes,
        "resampled by": "images" if by_image or frames == 1 else "scenes",
        "difference: covered %": covered(ends, 0),
        "difference: width": width(ends),
        "bootstrap: covered %": covered(drawn, 0),
        "one model: covered %": covered(alone, truth),
        "one model: width": width(alone),
    }


# --------------------------------------------------------------------------- rules


def scores(
    random: np.random.Generator, trials: int, images: int, points: Sequence[float], same: bool
) -> np.ndarray:
    """float64 (trials, models): mIoU of models that are so many points above the first.

    same: whether all are evaluated on the same images, or each on as many of its own.
    """
    drawn = draw(random, trials, images)
    found = []
    for one in points:
        found.append(miou(evaluate(random, drawn, quality_of(one))))
        drawn = drawn if same else draw(random, trials, images)
    return np.stack(found, -1)


def until_patience_ends(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen model of each chain that ends after PATIENCE rounds without a better one.

    Also the number of its rounds. found: float64 (trials, models).
    """
    best, rounds = np.zeros(len(found), int), np.zeros(len(found), int)
    for place in range(1, found.shape[1]):
        goes_on = place - 1 - best < PATIENCE
        better = goes_on & (found[:, place] > np.take_along_axis(found, best[:, None], 1)[:, 0])
        best, rounds = np.where(better, place, best), rounds + goes_on
    return best, rounds


def choosing(trials: int) -> Iterator[dict[str, object]]:
    """How often each rule chooses the better of two models, and what it loses in a chain."""
    lost = max(CHAIN) - np.array(CHAIN)

    def row(rule: str, images: int | str, better: float, chosen, rounds: float = len(CHAIN) - 1):
        return {
            "rule": rule,
            "val images": images,
            "better of two %": f"{100 * better:.0f}",
            "chain: points below its best": f"{np.mean(lost[chosen]):.2f}",
            "rounds": f"{np.mean(rounds):.1f}",
        }

    # The better one is the later one in half of the studies.
    yield row("last", "any", 0.5, np.array([-1]))
    for images in (6, 12, 30):
        for rule, same in (("unpaired", False), ("paired", True)):
            random = np.random.default_rng(2)
            two = scores(random, trials, images, (0.0, GAIN), same)
            better = float(np.mean(two[:, 1] > two[:, 0]))
            chain = scores(random, trials, images, CHAIN, same)
            yield row(rule, images, better, chain.argmax(1))
            if same:
                chosen, rounds = until_patience_ends(chain)
                yield row(f"paired, patience {PATIENCE}", images, better, chosen, rounds)


# --------------------------------------------------------------------------- files


def main() -> None:
    arguments = parse(__doc__)
    cases = [(scenes, 1, False) for scenes in (4, 6, 12, 30, 100)]
    cases += [(scenes, 10, by_image) for scenes in (6, 12, 30) for by_image in (False, True)]
    write(
        arguments.out / "choosing-intervals.csv",
        [covering(arguments.trials, *case) for case in cases],
    )
    write(arguments.out / "choosing.csv", [*choosing(arguments.trials)])


if __name__ == "__main__":
    main()
