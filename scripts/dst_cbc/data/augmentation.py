"""Augmentation of a training sample: image and mask are resampled together, then comes colour.

With `resampling: warp`, resize, rotation, flip and crop are one affine warp: only the pixels of the
crop are computed, and interpolation blurs only once. With `resampling: torch`, they follow one
another. Both have the order of Table 6 of the paper.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from ..settings.data import IGNORED
from ..settings.stages import Resampling
from ..settings.training import AugmentationSettings
from .interpolation import Interpolation

# The data loader runs several processes already; more threads would compete with them.
cv2.setNumThreads(1)

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Warp:
    """Where each output pixel comes from.

    size: output (height, width). affine: (a, b, c, d, e, f): the output point (x, y) shows the
    input point (a x + b y + c, d x + e y + f), both in pixels from the upper left corner.
    """

    size: tuple[int, int]
    affine: Affine

    def of(self, raster: tuple[int, int], image: tuple[int, int]) -> "Warp":
        """The same warp for a raster of another size that shows the same scene.

        raster: (height, width) of the raster; image: of the image that this warp is for.
        """
        down, across = (ours / theirs for ours, theirs in zip(raster, image, strict=True))
        factors = (across,) * 3 + (down,) * 3
        a, b, c, d, e, f = (n * factor for n, factor in zip(self.affine, factors, strict=True))
        return Warp(self.size, (a, b, c, d, e, f))

    def image(self, image: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
        """Warp an image, uint8 (H, W, 3), bilinear; `fill` is the colour outside it."""
        # OpenCV needs half as long for four channels as for three.
        four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        return self._apply(four, cv2.INTER_LINEAR, (*fill, 255))[..., :3]

    def label(self, label: np.ndarray) -> np.ndarray:
        """Warp a mask, uint8 (H, W), nearest neighbour; 255 (ignored) outside it."""
        return self._apply(label, cv2.INTER_NEAREST, IGNORED)

    def values(self, values: np.ndarray) -> np.ndarray:
        """Warp a map of numbers, float32 (H, W), nearest neighbour; 0 outside it."""
        return self._apply(values, cv2.INTER_NEAREST, 0)

    def _apply(self, pixels: np.ndarray, interpolation: int, fill) -> np.ndarray:
        a, b, c, d, e, f = self.affine
        # The origin of OpenCV is the centre of the first pixel, not its corner.
        matrix = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
        return cv2.warpAffine(
            pixels, matrix, self.size[::-1],
            flags=interpolation | cv2.WARP_INVERSE_MAP, borderValue=fill,
        )  # fmt: skip


def draw_warp(
    image_size: tuple[int, int],
    crop: tuple[int, int],
    settings: AugmentationSettings,
    random: np.random.Generator,
) -> Warp:
    """Draw a random resize, rotation, flip and crop.

    image_size, crop: (height, width). Before the rotation, the resized image lies inside the crop
    window where it is smaller, and fills the window where it is larger. With `settings.size`,
    height and width are drawn independently.
    """
    if settings.size:
        bounds = zip(*settings.size, strict=True)
        sides = [random.integers(low, high, endpoint=True) for low, high in bounds]
        scale_y, scale_x = (side / old for side, old in zip(sides, image_size, strict=True))
    else:
        scale_y = scale_x = random.uniform(*settings.scale)
    angle = math.radians(random.uniform(-settings.rotation, settings.rotation))
    mirror = -1.0 if random.random() < settings.flip else 1.0
    height, width = crop
    slack_y, slack_x = image_size[0] * scale_y - height, image_size[1] * scale_x - width
    # The rotation turns around the centre of the window, here in input pixels.
    centre_y = (random.random() * slack_y + height / 2) / scale_y
    centre_x = (random.random() * slack_x + width / 2) / scale_x
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, d, e = mirror * cos / scale_x, sin / scale_x, -mirror * sin / scale_y, cos / scale_y
    return Warp(
        crop,
        (
            a, b, centre_x - a * width / 2 - b * height / 2,
            d, e, centre_y - d * width / 2 - e * height / 2,
        ),
    )  # fmt: skip


def draw_interpolation(
    crop: tuple[int, int], settings: AugmentationSettings, random: np.random.Generator
) -> Interpolation:
    """Draw a random resize, crop and flip, in the order of the released code.

    crop: (height, width), not above the smaller size of `settings.size`. Height and width are
    drawn independently, both bounds included, and so is the whole pixel at which the crop begins.
    """
    assert settings.size is not None
    bounds = zip(*settings.size, strict=True)
    height, width = (int(random.integers(low, high, endpoint=True)) for low, high in bounds)
    top, left = (
        int(random.integers(0, side - part, endpoint=True))
        for side, part in zip((height, width), crop, strict=True)
    )
    mirror = random.random() < settings.flip
    return Interpolation((height, width), crop, top, left, mirror)


def whole(
    image_size: tuple[int, int],
    size: tuple[int, int],
    window: tuple[int, int] | None = None,
    resampling: Resampling = "warp",
) -> Warp | Interpolation:
    """No augmentation: the whole image, resized to `size` ("-NA", Table 5b).

    window: (height, width) of the output, by default `size`; the image lies in its upper left
    corner.
    """
    if resampling == "torch":
        return Interpolation(size, window or size)
    down, across = (side / target for side, target in zip(image_size, size, strict=True))
    return Warp(window or size, (across, 0.0, 0.0, 0.0, down, 0.0))


def jitter(
    pixels: np.ndarray, settings: AugmentationSettings, random: np.random.Generator
) -> np.ndarray:
    """Randomly change brightness, contrast, saturation and hue of uint8 (H, W, 3); add noise."""
    enhancers = (
        (settings.brightness, ImageEnhance.Brightness),
        (settings.contrast, ImageEnhance.Contrast),
        (settings.saturation, ImageEnhance.Color),
    )
    if settings.hue or any(amount for amount, _ in enhancers):
        image = Image.fromarray(pixels)
        for amount, enhance in enhancers:
            if amount:
                image = enhance(image).enhance(random.uniform(1 - amount, 1 + amount))
        if settings.hue:
            image = _shift_hue(image, random.uniform(-settings.hue, settings.hue))
        pixels = np.asarray(image)
    if not settings.noise:
        return pixels
    deviation = 255 * random.uniform(0, settings.noise)
    noise = random.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """Shift every hue by this many turns of the colour circle."""
    hue, *rest = image.convert("HSV").split()
    shift = round(256 * turns)
    hue = hue.point([(value + shift) % 256 for value in range(256)])
    return Image.merge("HSV", (hue, *rest)).convert("RGB")
