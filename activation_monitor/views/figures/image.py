"""The heat map as an image, for viewers without the tab."""

import struct
import zlib

import numpy as np

from activation_monitor.analysis.snapshot import Recording
from activation_monitor.views.figures import path as paths
from activation_monitor.views.figures.colours import LIGHT, rgb
from activation_monitor.views.figures.heat import table
from activation_monitor.views.figures.pixel_text import INK, text_mask, write

DECADES = 6.0
"""Distance from 1 at which a size has the darkest colour. It is fixed, so that images
of two runs can be compared."""

ABOUT = (
    "Rms of each layer, from the input at the top downwards, at the sampled steps, from "
    "left to right. Layers are numbered as in the tags of the other tabs. Pale: 1. Blue: "
    "smaller, darkest at 1e-6. Red: larger, darkest at 1e6. Grey: only zeros. Yellow: NaN "
    "or infinite elements."
)
"""The description of the image."""

_WIDTH, _HEIGHT = 640, 360

_MARGINS = {"left": 64, "top": 32, "right": 136, "bottom": 56}
"""Pixels around the heat map: for the numbers of the layers, titles, the key, the steps."""

_LINE = 20
"""Pixels from one line of text to the next."""

_TICK = 5


def picture(recording: Recording) -> np.ndarray:
    """The rms of each layer at each step, with axes and a key, as pixels.

    Args:
        recording: The recording of one run.

    Returns:
        A uint8 array of shape `(height, width, 3)`. Its part `heat_area` is `heat_image`.

    Raises:
        ValueError: If the recording is empty.
    """
    heat = heat_image(recording)
    names, steps, *_ = table(recording, "rms")
    position = {name: str(i) for i, name in enumerate(recording[0].names)}
    layers = len(names)
    left, top = _MARGINS["left"], _MARGINS["top"]
    height, width, _ = heat.shape
    shape = (height + top + _MARGINS["bottom"], width + left + _MARGINS["right"], 3)
    pixels = np.full(shape, 255, np.uint8)
    pixels[heat_area(heat)] = heat
    write(pixels, "layer", left - _TICK, top - _LINE, anchor=1.0)
    for layer in _spread(layers, height // _LINE):
        y = top + (layer + 0.5) * height / layers
        pixels[round(y), left - _TICK : left] = INK
        # A layer that was not there at the first step has no number.
        write(pixels, position.get(names[layer], ""), left - 2 * _TICK, y, anchor=1.0)
    bottom = top + height
    for column in _apart(steps, width):
        x = left + (column + 0.5) * width / len(steps)
        pixels[bottom : bottom + _TICK, round(x)] = INK
        write(pixels, str(steps[column]), x, bottom + _TICK + _LINE / 2, anchor=0.5)
    write(pixels, "step", left + width / 2, bottom + _TICK + 1.5 * _LINE, anchor=0.5)
    _add_key(pixels[top - 3 * _LINE // 2 :, left + width + _LINE :])
    return pixels


def heat_area(heat: np.ndarray) -> tuple[slice, slice]:
    """Where a heat map is in its `picture`: slices of rows and of columns."""
    (left, top), (height, width) = (_MARGINS["left"], _MARGINS["top"]), heat.shape[:2]
    return slice(top, top + height), slice(left, left + width)


def _spread(count: int, most: int) -> range:
    """Numbers from 0 on with equal, round distances, `most` of them at most."""
    steps = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    every = next(step for step in steps if -(-count // step) <= max(most, 1))
    return range(0, count, every)


def _apart(steps: list[int], width: int) -> list[int]:
    """The columns whose steps are written: the first, the last, and those between them
    whose labels do not overlap."""

    def half(column):
        return text_mask(f"{steps[column]} ", 2).shape[1] / 2

    each, last = width / len(steps), len(steps) - 1
    chosen = [0]
    for column in range(1, len(steps)):
        room = (column - chosen[-1]) * each >= half(chosen[-1]) + half(column)
        to_last = (last - column) * each >= half(last) + half(column)
        if room and (to_last or column == last):
            chosen.append(column)
    return chosen


def _add_key(pixels: np.ndarray) -> None:
    """Draw the colours and what they mean, from the top left corner on."""
    height, width = _HEIGHT // 2, _LINE
    write(pixels, "rms", 0, _LINE / 2)
    top = 3 * _LINE // 2  # level with the heat map
    bar = pixels[top : top + height, :width]
    bar[:] = _colours(np.linspace(DECADES, -DECADES, height))[:, None]
    marks = {"1e6": 0.0, "1e3": 0.25, "1": 0.5, "1e-3": 0.75, "1e-6": 1.0}
    for label, share in marks.items():
        write(pixels, label, width + _TICK, top + share * height)
    for i, (label, colour) in enumerate(_EXCEPTIONS.items()):
        y = top + height + (1.5 + 1.2 * i) * _LINE
        pixels[round(y) - _TICK : round(y) + _TICK, :width] = rgb(colour)
        write(pixels, label, width + _TICK, y)


_EXCEPTIONS = {"zero": LIGHT.zero, "NaN inf": LIGHT.nonfinite}
"""What has a colour of its own in the key."""


def _colours(decades: np.ndarray) -> np.ndarray:
    """The colours of sizes, given as their `log10`: an array of shape `(..., 3)`."""
    scale = [rgb(colour) for _, colour in LIGHT.sizes]
    places = np.linspace(-DECADES, DECADES, len(scale))
    shown = np.clip(np.nan_to_num(decades), -DECADES, DECADES)
    return np.stack([np.interp(shown, places, c) for c in zip(*scale, strict=True)], -1)


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
    pixels = _colours(y)
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
