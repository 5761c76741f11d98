"""Resize, crop and mirror one after the other, by torch's `interpolate`, as the released code does.

The key `resampling: torch` chooses it. Images are float32: `bilinear` without antialiasing, with
pixel centres (align_corners=False). Masks are `nearest`, which rounds positions down: output pixel
i shows input pixel floor(i * input size / output size).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..settings.data import IGNORED


@dataclass(frozen=True)
class Interpolation:
    """An image is resized, and a window is cut out of it.

    resized: (height, width) of the resized image. size: output (height, width). top, left: where
    the window begins in the resized image; it may reach beyond the bottom and the right border.
    mirror: whether the window is mirrored left to right.
    """

    resized: tuple[int, int]
    size: tuple[int, int]
    top: int = 0
    left: int = 0
    mirror: bool = False

    def of(self, raster: tuple[int, int], image: tuple[int, int]) -> "Interpolation":
        """The same for a raster of another size that shows the same scene: nothing changes."""
        return self

    def image(self, image: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
        """uint8 (H, W, 3) -> float32 (h, w, 3) in 0..255; `fill` is the colour outside it."""
        planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
        found = F.interpolate(planes[None], self.resized, mode="bilinear", align_corners=False)
        inside = self._cut(found[0].permute(1, 2, 0).numpy())
        window = np.empty((*self.size, 3), np.float32)
        window[:] = fill
        return self._place(inside, window)

    def label(self, label: np.ndarray) -> np.ndarray:
        """uint8 (H, W) -> uint8 (h, w); 255 (ignored) outside it."""
        return self._place(self._nearest(label), np.full(self.size, IGNORED, np.uint8))

    def values(self, values: np.ndarray) -> np.ndarray:
        """float32 (H, W) -> float32 (h, w), nearest; 0 outside it."""
        return self._place(self._nearest(values), np.zeros(self.size, np.float32))

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        # A copy, because torch takes no array that it could not write.
        planes = torch.from_numpy(values.copy())[None, None]
        return self._cut(F.interpolate(planes, self.resized, mode="nearest")[0, 0].numpy())

    def _cut(self, resized: np.ndarray) -> np.ndarray:
        height, width = self.size
        return resized[self.top : self.top + height, self.left : self.left + width]

    def _place(self, inside: np.ndarray, window: np.ndarray) -> np.ndarray:
        window[: inside.shape[0], : inside.shape[1]] = inside
        return np.ascontiguousarray(window[:, ::-1]) if self.mirror else window
