"""A few characters as pixels: what the axes and the key of an image need."""

import numpy as np

WIDTH, HEIGHT = 5, 7
"""Size of a character, in pixels of the glyph."""

GLYPHS = {
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ..##. .#... #.... #####",
    "3": "####. ....# ....# .###. ....# ....# ####.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": "..##. .#... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ..#.. ..#.. .#... .#...",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ...#. .##..",
    "-": "..... ..... ..... .###. ..... ..... .....",
    "N": "#...# ##..# ##..# #.#.# #..## #..## #...#",
    "a": "..... ..... .###. ....# .#### #...# .####",
    "e": "..... ..... .###. #...# ##### #.... .###.",
    "f": "..##. .#..# .#... ####. .#... .#... .#...",
    "i": "..#.. ..... .##.. ..#.. ..#.. ..#.. .###.",
    "l": ".##.. ..#.. ..#.. ..#.. ..#.. ..#.. .###.",
    "m": "..... ..... ##.#. #.#.# #.#.# #.#.# #.#.#",
    "n": "..... ..... ####. #...# #...# #...# #...#",
    "o": "..... ..... .###. #...# #...# #...# .###.",
    "p": "..... ..... ####. #...# ####. #.... #....",
    "r": "..... ..... #.##. ##..# #.... #.... #....",
    "s": "..... ..... .#### #.... .###. ....# ####.",
    "t": ".#... .#... ####. .#... .#... .#..# ..##.",
    "y": "..... ..... #...# #...# .#### ....# .###.",
    "z": "..... ..... ##### ...#. ..#.. .#... #####",
    " ": "..... ..... ..... ..... ..... ..... .....",
}
"""By character, its rows from the top, `#` where there is ink."""


def text_mask(text: str, size: int) -> np.ndarray:
    """Where a text has ink.

    Args:
        text: Characters of `GLYPHS`.
        size: Pixels of the image for each pixel of a glyph, in either direction.

    Returns:
        A boolean array of shape `(HEIGHT * size, n)`, with one empty pixel of the glyph
        between two characters.

    Raises:
        KeyError: If there is no glyph for a character.
    """
    rows = [GLYPHS[character].split() for character in text]
    lines = [".".join(row[i] for row in rows) for i in range(HEIGHT)]
    mask = np.array([[ink == "#" for ink in line] for line in lines], bool)
    return mask.repeat(size, axis=0).repeat(size, axis=1)


def write(
    pixels: np.ndarray, text: str, x: float, y: float, anchor: float = 0.0, size: int = 2
) -> None:
    """Write a text into an image, as far as it lies within it.

    Args:
        pixels: A uint8 array of shape `(height, width, 3)`, which is changed.
        text: Characters of `GLYPHS`.
        x: Where the text begins (`anchor` 0), has its middle (0.5) or ends (1).
        y: The middle of its height.
        anchor: See `x`. Defaults to `0.0`.
        size: See `text_mask`. Defaults to `2`.
    """
    mask = text_mask(text, size)
    height, width = mask.shape
    left, top = round(x - anchor * width), round(y - height / 2)
    rows, columns = np.nonzero(mask)
    rows, columns = rows + top, columns + left
    inside = (0 <= rows) & (rows < len(pixels)) & (0 <= columns)
    inside &= columns < pixels.shape[1]
    pixels[rows[inside], columns[inside]] = INK


INK = (60, 60, 60)
"""The colour of text, red, green and blue."""
