"""Generated colour images of 100 classes: shape x texture x colour, the same bytes on every platform.

All arithmetic is in integers: random numbers are hashes of the image's number, and sines come from a table.
"""

import functools

import numpy as np

SHAPES = ("disc", "square", "triangle", "cross", "ring")
TEXTURES = ("plain", "stripes", "checks", "halves", "bands")
COLOURS = ("red", "green", "blue", "yellow")
CLASSES = len(SHAPES) * len(TEXTURES) * len(COLOURS)
SIDE = 32
TRAIN = 50_000  # images in the training split, unless another number is asked for
TEST_START = 2**31  # number of the first test image
CHUNK = 500  # images made at a time

BRIGHT = np.array([[225, 60, 60], [60, 200, 70], [70, 90, 230], [220, 205, 60]], np.int32)
# round(4096 sin(i pi / 64)), i = 0 ... 32
QUARTER = [0, 201, 401, 601, 799, 995, 1189, 1380, 1567, 1751, 1931, 2106, 2276, 2440, 2598, 2751, 2896, 3035, 3166,
           3290, 3406, 3513, 3612, 3703, 3784, 3857, 3920, 3973, 4017, 4052, 4076, 4091, 4096]  # fmt: skip
SINE = np.array([*QUARTER, *QUARTER[-2:0:-1], *(-x for x in QUARTER), *(-x for x in QUARTER[-2:0:-1])], np.int32)
TURN = len(SINE)
UNIT = 256  # half the object's size in its own coordinates


def hashed(x: np.ndarray) -> np.ndarray:
    """A bijection of uint32 that looks random (multiplications and shifts, modulo 2^32)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


class Draws:
    """Random integers of consecutive images, ``int32[N, 1, 1]``: the k-th call hashes each image's number and k."""

    def __init__(self, first: int, count: int) -> None:
        self.keys = hashed(np.arange(first, first + count, dtype=np.uint32) + np.uint32(0x9E3779B9))
        self.calls = 0

    def below(self, bound: int) -> np.ndarray:
        """Uniform in ``0 ... bound - 1``."""
        self.calls += 1
        drawn = hashed(self.keys ^ hashed(np.array([self.calls], np.uint32)))
        return ((drawn >> np.uint32(8)) % np.uint32(bound)).astype(np.int32)[:, None, None]

    def between(self, low: int, high: int) -> np.ndarray:
        """Uniform in ``low ... high``."""
        return low + self.below(high - low + 1)

    def colour(self, low: int, high: int) -> np.ndarray:
        """Three channels, each uniform in ``low ... high``: ``int32[N, 1, 1, 3]``."""
        return np.stack([self.between(low, high) for _ in range(3)], axis=-1)

    def noise(self) -> np.ndarray:
        """Triangular in -255 ... 255 for every pixel and channel: ``int32[N, SIDE, SIDE, 3]``."""
        places = np.arange(SIDE * SIDE * 3, dtype=np.uint32) * np.uint32(0x9E3779B1)
        drawn = hashed(self.keys[:, None] ^ places)
        drawn = (drawn & np.uint32(255)).astype(np.int32) - (drawn >> np.uint32(24)).astype(np.int32)
        return drawn.reshape(-1, SIDE, SIDE, 3)


def inside(shape: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points of the object's coordinates (in units of 1 / UNIT) belong to the shape, bool[N, SIDE, SIDE]."""
    square, low = u * u + v * v, np.minimum(abs(u), abs(v))
    high = np.maximum(abs(u), abs(v))
    members = [
        square < 235**2,
        high < 210,
        (v < 140) & (443 * abs(u) - 256 * v < 512 * 140),
        (low < 90) & (high < 250),
        (square < 256**2) & (square > 128**2),
    ]
    return np.choose(shape, members)


def pattern(texture: np.ndarray, u: np.ndarray, v: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """0 or 1 by texture, int32[N, SIDE, SIDE]; stripes and checks are moved by ``shift``."""
    x, y, square = u + shift + 1024, v + shift + 1024, u * u + v * v
    return np.choose(
        texture,
        [
            np.zeros_like(u),
            (x // 80) & 1,
            ((x // 112) ^ (y // 112)) & 1,
            (v > 0).astype(np.int32),
            ((square > 95**2) & (square < 185**2)).astype(np.int32),
        ],
    )


def background(draws: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A gradient between two random colours, and a bar and a box of random colours, int32[N, SIDE, SIDE, 3]."""
    one, two = draws.colour(20, 235), draws.colour(20, 235)
    along = np.where(draws.below(2) == 0, x, y)[..., None]
    image = (one * (SIDE - 1 - along) + two * along) // (SIDE - 1)
    for smallest, largest, bar in ((2, 4, True), (4, 9, False)):
        left, top, size = draws.below(SIDE), draws.below(SIDE), draws.between(smallest, largest)
        across = (x >= left) & (x < left + size)
        down = (y >= top) & (y < top + size)
        covered = np.where(draws.below(2) == 0, across, down) if bar else across & down
        image = np.where(covered[..., None], draws.colour(20, 235), image)
    return image


def drawn(first: int, classes: np.ndarray) -> np.ndarray:
    """The images ``first, first + 1, ...`` of these classes, ``uint8[N, SIDE, SIDE, 3]``."""
    draws = Draws(first, len(classes))
    kind = classes.astype(np.int32)[:, None, None]
    shape, texture, colour = kind // 20, kind // 4 % 5, kind % 4
    y, x = (each.astype(np.int32)[None] for each in np.mgrid[:SIDE, :SIDE])
    image = background(draws, x, y)
    # Twice the offset from the object's centre, rotated, in units of 1 / UNIT of its half size.
    radius, angle = draws.between(16, 26), draws.below(TURN)
    dx, dy = 2 * x - draws.between(22, 40), 2 * y - draws.between(22, 40)
    sine, cosine = SINE[angle], SINE[(angle + TURN // 4) % TURN]
    u = (cosine * dx + sine * dy) * (UNIT // 16) // (radius * 256)
    v = (cosine * dy - sine * dx) * (UNIT // 16) // (radius * 256)
    base = np.clip(BRIGHT[colour] + draws.colour(-35, 35), 0, 255)
    light = draws.between(60, 100)[..., None]
    other = base * draws.between(25, 45)[..., None] // 100
    marked = (pattern(texture, u, v, draws.below(150)) ^ draws.below(2)) == 1
    marked &= texture > 0
    paint = np.where(marked[..., None], other, base) * light // 100
    image = np.where(inside(shape, u, v)[..., None], paint, image)
    noisy = image + draws.noise() * draws.between(4, 24)[..., None] // 128
    return np.clip(noisy, 0, 255).astype(np.uint8)


def labels(count: int) -> np.ndarray:
    """The classes of the first ``count`` images, int32: 0 ... 99, 0 ... 99, ..."""
    return (np.arange(count) % CLASSES).astype(np.int32)


@functools.lru_cache(maxsize=2)
def images(count: int, test: bool = False) -> np.ndarray:
    """The first ``count`` images of a split, ``uint8[count, SIDE, SIDE, 3]`` (read only); they have :func:`labels`."""
    first, found = TEST_START if test else 0, labels(count)
    parts = [drawn(first + start, found[start : start + CHUNK]) for start in range(0, count, CHUNK)]
    together = np.concatenate(parts)
    together.setflags(write=False)
    return together
