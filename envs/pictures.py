"""Small generated image classification data sets of several kinds, the same bytes on every platform.

Colour images of 32 x 32 pixels, in integers as in :mod:`plasticity.envs.shapes`: what defines the class in one set is
random in the others.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from plasticity.envs.shapes import CHUNK, SHAPES, SIDE, SINE, TEST_START, TURN, UNIT, Draws, background, hashed, inside

COUNT = 2000  # images in the training split, unless another number is asked for
APART = 2**24  # image numbers of each set
HUES = np.array(
    [[220, 50, 50], [225, 140, 40], [215, 210, 50], [90, 190, 60], [50, 190, 180], [60, 90, 220], [140, 60, 200],
     [215, 70, 160]], np.int32)  # fmt: skip
TEXTURES = ("stripes", "checks", "rings", "dots", "waves", "blocks")
MOST_DISCS = 4
# Ten digits of 5 x 7 cells, row by row.
DIGITS = (
    "01110 10001 10011 10101 11001 10001 01110", "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111", "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010", "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110", "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110", "01110 10001 10001 01111 00001 00010 01100",
)  # fmt: skip
GLYPHS = np.array([[list(map(int, row)) for row in digit.split()] for digit in DIGITS], np.int32)


def _places() -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of all pixels, int32[1, SIDE, SIDE] each."""
    y, x = (each.astype(np.int32)[None] for each in np.mgrid[:SIDE, :SIDE])
    return x, y


def _rotated(draws: Draws, dx: np.ndarray, dy: np.ndarray, scale: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """``scale (dx, dy)``, rotated by a random angle."""
    angle = draws.below(TURN)
    sine, cosine = SINE[angle], SINE[(angle + TURN // 4) % TURN]
    return (cosine * dx + sine * dy) * scale // 4096, (cosine * dy - sine * dx) * scale // 4096


def _two_colours(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """A dark and a bright random colour, in random order, int32[N, 1, 1, 3] each."""
    dark, bright, swap = draws.colour(15, 110), draws.colour(145, 240), draws.below(2)[..., None] == 1
    return np.where(swap, dark, bright), np.where(swap, bright, dark)


def _colours(draws: Draws, kind: np.ndarray) -> np.ndarray:
    """One of eight hues under uneven light, with a grey box on it."""
    x, y = _places()
    base = np.clip(HUES[kind] + draws.colour(-20, 20), 0, 255)
    along = np.where(draws.below(2) == 0, x, y)
    one, two = draws.between(45, 100), draws.between(45, 100)
    image = base * ((one * (SIDE - 1 - along) + two * along) // (SIDE - 1))[..., None] // 100
    left, top, size, grey = draws.below(SIDE), draws.below(SIDE), draws.between(4, 12), draws.between(30, 220)
    covered = (x >= left) & (x < left + size) & (y >= top) & (y < top + size)
    return np.where(covered[..., None], grey[..., None], image)


def _textures(draws: Draws, kind: np.ndarray) -> np.ndarray:
    """One of six patterns in two random colours, rotated, scaled and moved at random."""
    x, y = _places()
    u, v = _rotated(draws, 2 * x - SIDE + 1, 2 * y - SIDE + 1, 8)  # in sixteenths of a pixel
    u, v, width = u + draws.below(512) + 4096, v + draws.below(512) + 4096, draws.between(48, 96)
    radius = np.sqrt(((u - 4352).astype(np.int64) ** 2 + (v - 4352).astype(np.int64) ** 2).astype(float))
    cells = hashed((u // width * 131 + v // width).astype(np.uint32) ^ draws.below(2**20).astype(np.uint32))
    half = width // 2
    members = [
        (u // half) & 1,
        ((u // width) ^ (v // width)) & 1,
        (radius.astype(np.int32) // half) & 1,
        ((u % width - half) ** 2 + (v % width - half) ** 2 < (width * 11 // 32) ** 2).astype(np.int32),
        ((u + SINE[(v * 2 // 5) % TURN] * width // 8192) // half) & 1,
        (cells & np.uint32(1)).astype(np.int32),
    ]
    one, two = _two_colours(draws)
    return np.where(np.choose(kind, members)[..., None] == 1, one, two)


def _silhouettes(draws: Draws, kind: np.ndarray) -> np.ndarray:
    """One of five shapes in a random colour, at a random place, size and angle, before clutter."""
    x, y = _places()
    image = background(draws, x, y)
    radius = draws.between(16, 26)
    u, v = _rotated(draws, 2 * x - draws.between(22, 40), 2 * y - draws.between(22, 40), UNIT)
    shape = inside(kind, u // radius, v // radius)
    return np.where(shape[..., None], draws.colour(20, 235), image)


def _glyphs(draws: Draws, kind: np.ndarray) -> np.ndarray:
    """One of ten digits of 5 x 7 cells, at a random place and size, in two random colours."""
    x, y = _places()
    width, height = draws.between(10, 20), draws.between(14, 26)
    column = (x - draws.between(1, 11)) * 5 // width
    row = (y - draws.between(1, 5)) * 7 // height
    on = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
    on &= GLYPHS[kind, np.clip(row, 0, 6), np.clip(column, 0, 4)] == 1
    one, two = _two_colours(draws)
    return np.where(on[..., None], one, two)


def _counts(draws: Draws, kind: np.ndarray) -> np.ndarray:
    """One to four discs of one random colour, each in another quarter of the image."""
    x, y = _places()
    ink, paper = _two_colours(draws)
    first, covered = draws.below(4), np.zeros((len(kind), SIDE, SIDE), bool)
    for number in range(MOST_DISCS):
        quarter, radius = (first + number * 3) % 4, draws.between(3, 6)
        dx = x - (quarter % 2 * 16 + draws.between(6, 9))
        dy = y - (quarter // 2 * 16 + draws.between(6, 9))
        covered |= (number <= kind) & (dx * dx + dy * dy <= radius * radius)
    return np.where(covered[..., None], ink, paper)


class Pictures(NamedTuple):
    """A generated data set."""

    classes: int
    draw: Callable[[Draws, np.ndarray], np.ndarray]  # random numbers, classes int32[N, 1, 1] -> int32[N, SIDE, SIDE, 3]


PICTURES: Mapping[str, Pictures] = {
    "colours": Pictures(len(HUES), _colours),
    "textures": Pictures(len(TEXTURES), _textures),
    "silhouettes": Pictures(len(SHAPES), _silhouettes),
    "glyphs": Pictures(len(GLYPHS), _glyphs),
    "counts": Pictures(MOST_DISCS, _counts),
}


def labels(name: str, count: int) -> np.ndarray:
    """The classes of the first ``count`` images, int32: 0, 1, ..., the last, 0, 1, ..."""
    return (np.arange(count) % PICTURES[name].classes).astype(np.int32)


@functools.lru_cache(maxsize=16)
def images(name: str, count: int, test: bool = False) -> np.ndarray:
    """The first ``count`` images of a split of a set, ``uint8[count, SIDE, SIDE, 3]`` (read only)."""
    first = (TEST_START if test else 0) + APART * list(PICTURES).index(name)
    found = labels(name, count)
    parts = [_drawn(name, first + start, found[start : start + CHUNK]) for start in range(0, count, CHUNK)]
    together = np.concatenate(parts)
    together.setflags(write=False)
    return together


def _drawn(name: str, first: int, classes: np.ndarray) -> np.ndarray:
    """The images ``first, first + 1, ...`` of these classes, with noise."""
    draws = Draws(first, len(classes))
    image = PICTURES[name].draw(draws, classes.astype(np.int32)[:, None, None])
    return np.clip(image + draws.noise() * draws.between(4, 24)[..., None] // 128, 0, 255).astype(np.uint8)
