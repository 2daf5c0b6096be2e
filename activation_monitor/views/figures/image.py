"""The heat map as an image, for viewers without the tab."""

import struct
import zlib

import numpy as np

from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures.heat import table
from activation_monitor.views.figures.style import LIGHT, rgb

DECADES = 6.0
"""Distance from 1 at which a size has the darkest colour. It is fixed, because the image
has no scale beside it."""

ABOUT = (
    "Rms of each layer, from the input at the top downwards, at the sampled steps, from "
    "left to right. Pale: 1. Blue: smaller, darkest at 1e-6. Red: larger, darkest at 1e6. "
    "Grey: only zeros. Yellow: NaN or infinite elements."
)
"""The description of the image."""

_WIDTH, _HEIGHT = 640, 360


def heat_image(recording: Recording) -> np.ndarray:
    """The rms of each layer at each step, as pixels.

    Args:
        recording: The recording of one run.

    Returns:
        A uint8 array of shape `(height, width, 3)`, about 360 x 640, with equally many
        pixels for each layer and step. Layers that were not measured are white.

    Raises:
        ValueError: If the recording is empty.
    """
    paths.check(recording, "heat_image")
    _, _, y, zero, nonfinite = table(recording, "rms")
    scale = [rgb(colour) for _, colour in LIGHT.sizes]
    places = np.linspace(-DECADES, DECADES, len(scale))
    shown = np.clip(np.nan_to_num(y), -DECADES, DECADES)
    pixels = np.stack([np.interp(shown, places, c) for c in zip(*scale, strict=True)], -1)
    pixels[np.isnan(y)] = rgb("#ffffff")
    pixels[zero] = rgb(LIGHT.zero)
    pixels[nonfinite] = rgb(LIGHT.nonfinite)
    for axis, size in ((0, _HEIGHT), (1, _WIDTH)):
        each = max(1, round(size / pixels.shape[axis]))
        pixels = pixels.repeat(each, axis)
    return pixels.round().astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """The content of a PNG file.

    Args:
        pixels: A uint8 array of shape `(height, width, 3)`.
    """
    height, width, _ = pixels.shape
    rows = np.zeros(
        (height, 1 + 3 * width), np.uint8
    )  # each row begins with its filter, none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(rows.tobytes())),
            (b"IEND", b""),
        )
    )


def _chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
