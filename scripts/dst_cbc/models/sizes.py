"""The sizes in which a network sees an image: resized, and cut into tiles. It imports no torch."""

from collections.abc import Iterator, Sequence


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """(height, width) of an image that is resized by a factor."""
    height, width = (max(1, round(scale * side)) for side in size)
    return height, width


def spans(
    length: int, tile: int, stride: int, grid: int
) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Yield the tiles along one side: first pixel, end, and the slice of logits to keep.

    Every tile starts on the network's grid, and its length modulo the grid equals the length of
    the side modulo the grid. Padding that depends on this remainder (TensorFlow's SAME) is then
    the same in the tiles and in the whole image.
    """
    if length <= tile:
        yield 0, length, None, None
        return
    margin, each = max(1, tile // 8 // grid), grid // stride
    size = max(2 * margin + 1, tile // grid) * grid + length % grid
    step = size // grid - 2 * margin
    start = 0
    while start * grid + size < length:
        first = each * margin if start else 0
        yield start * grid, start * grid + size, first, each * (margin + step)
        start += step
    yield start * grid, length, each * margin if start else 0, None
