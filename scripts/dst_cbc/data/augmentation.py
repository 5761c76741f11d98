"""Augmentation of a training sample: one affine warp of image and mask together, then colour.

Resize, rotation, flip and crop are one resampling, so that only what is used is computed and
nothing is blurred twice (paper, Table 6, draws them in the same order).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from ..settings.data import IGNORED
from ..settings.training import AugmentationSettings

# The loader has processes for that.
cv2.setNumThreads(1)

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Warp:
    """Where each output pixel comes from.

    size: output (height, width); affine: (a, b, c, d, e, f), output point (x, y) shows the input
    point (a x + b y + c, d x + e y + f), both in pixels from the upper left corner.
    """

    size: tuple[int, int]
    affine: Affine

    def image(self, image: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
        """Bilinear, uint8 (H, W, 3); `fill` outside the image."""
        # OpenCV takes four channels in half of the time of three.
        four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        return self._apply(four, cv2.INTER_LINEAR, (*fill, 255))[..., :3]

    def label(self, label: np.ndarray) -> np.ndarray:
        """Nearest, uint8 (H, W); ignored outside the image."""
        return self._apply(label, cv2.INTER_NEAREST, IGNORED)

    def values(self, values: np.ndarray) -> np.ndarray:
        """Nearest, float32 (H, W); 0 outside the image."""
        return self._apply(values, cv2.INTER_NEAREST, 0)

    def _apply(self, pixels: np.ndarray, interpolation: int, fill) -> np.ndarray:
        a, b, c, d, e, f = self.affine
        # OpenCV counts from the centre of the first pixel, not from its corner.
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
    input_scale: float = 1.0,
) -> Warp:
    """A random resize, rotation, flip and crop.

    image_size, crop: (height, width). The resized image and the window of the crop overlap as
    far as they can: a smaller image lies inside the window, a larger one around it. With
    `settings.size` height and width are drawn each for itself, and input_scale does not count.
    """
    if settings.size:
        bounds = zip(*settings.size, strict=True)
        sides = [random.integers(low, high, endpoint=True) for low, high in bounds]
        scale_y, scale_x = (side / old for side, old in zip(sides, image_size, strict=True))
    else:
        scale_y = scale_x = input_scale * random.uniform(*settings.scale)
    angle = math.radians(random.uniform(-settings.rotation, settings.rotation))
    mirror = -1.0 if random.random() < settings.flip else 1.0
    height, width = crop
    slack_y, slack_x = image_size[0] * scale_y - height, image_size[1] * scale_x - width
    # Centre of the window in the input's pixels; the rotation turns around it.
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


def whole(
    image_size: tuple[int, int], size: tuple[int, int], window: tuple[int, int] | None = None
) -> Warp:
    """No augmentation: the whole image, resized to `size` ("-NA", Table 5b).

    window: (height, width) of the output, `size` where it is none; the image is in its upper left
    corner.
    """
    down, across = (side / target for side, target in zip(image_size, size, strict=True))
    return Warp(window or size, (across, 0.0, 0.0, 0.0, down, 0.0))


def jitter(
    pixels: np.ndarray, settings: AugmentationSettings, random: np.random.Generator
) -> np.ndarray:
    """Random brightness, contrast, saturation, hue and noise of uint8 (H, W, 3)."""
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
    """Every hue moved around the colour circle; 1 is once around."""
    hue, *rest = image.convert("HSV").split()
    shift = round(256 * turns)
    hue = hue.point([(value + shift) % 256 for value in range(256)])
    return Image.merge("HSV", (hue, *rest)).convert("RGB")
