"""Images as inputs: standardised when drawn, and augmented by random flips, crops and rotations."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.errors import suggestion
from plasticity.core.types import Array, Key

Standardise = Literal["all", "channel", "none"]


class ImageRows(NamedTuple):
    """Images drawn by row index."""

    at: Callable[[Any], Array]  # row indices -> float32 or uint8 [..., *shape]
    dtype: Any
    fill: Any  # the mean pixel in units of what `at` returns: 0, or float32[channels] for bytes


class Augmentation(NamedTuple):
    """Ranges of random changes to an image (static); 0 is none."""

    flip: float = 0.0  # probability of a left-right flip
    crop: int = 0  # padding on each side, in pixels
    rotate: float = 0.0  # largest angle, in degrees


AUGMENTATIONS = Augmentation._fields


def moments(pixels: np.ndarray) -> tuple[float, float]:
    """The exact mean and standard deviation of all pixels of all images, from the counts of the 256 values."""
    share = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    values = np.arange(256)
    mean = share @ values
    return float(mean), float(np.sqrt(share @ (values - mean) ** 2))


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and standard deviation of each channel, float32[channels]."""
    mean, deviation = np.array([moments(images[..., channel]) for channel in range(images.shape[-1])], np.float32).T
    return mean, deviation


def image_rows(name: str, images: np.ndarray, size: int, flat: bool, standardise: Standardise) -> ImageRows:
    """The images ``uint8[N, height, width, channels]``, stored as bytes and standardised when drawn.

    Means and deviations are those of the first ``size`` images: one for all pixels, or one for each channel. The images
    are a constant of the compiled programs: 150 MB (all of CIFAR-10) add about ten seconds to each compilation.
    ``ValueError`` if the deviation is 0.
    """
    stored = images.reshape(len(images), -1) if flat else images
    pixels = jnp.asarray(stored)
    if standardise == "none":
        return ImageRows(lambda index: pixels[index], jnp.uint8, channel_moments(images[:size])[0])
    mean, deviation = moments(images[:size]) if standardise == "all" else channel_moments(images[:size])
    if not np.all(deviation):
        where = "" if standardise == "all" else f" of channel {int(np.argmin(deviation))}"
        raise ValueError(f"inputs: {name} cannot be standardised; all pixels{where} have the same value")
    if standardise == "channel":  # channels are the last axis, also of flattened images
        repeats = stored.shape[-1] // images.shape[-1]
        mean, deviation = np.tile(mean, repeats), np.tile(deviation, repeats)
    return ImageRows(lambda index: (pixels[index].astype(jnp.float32) - mean) / deviation, jnp.float32, 0.0)


def augmentation_of(settings: Mapping[str, float], image: tuple[int, ...]) -> Augmentation:
    """The setting ``augment`` for images of this shape; ``ValueError`` for an unknown key or a value out of range."""
    for key in settings:
        if key not in AUGMENTATIONS:
            allowed = ", ".join(AUGMENTATIONS)
            raise ValueError(f"augment.{key} is not allowed; must be {allowed}{suggestion(key, AUGMENTATIONS)}")
    if settings and not image:
        raise ValueError(f"augment: {dict(settings)} is not allowed; must be {{}}, because the inputs are not images")
    made = Augmentation(**settings)  # type: ignore[arg-type]
    largest = min(image[:2], default=1) - 1
    for key, high, whole in (("flip", 1, False), ("crop", largest, True), ("rotate", 180, False)):
        value = getattr(made, key)
        if not 0 <= value <= high or (whole and value != int(value)):
            number = "an integer" if whole else "a number"
            raise ValueError(f"augment.{key}: {value:g} is not allowed; must be {number} in [0, {high}]")
    return made._replace(crop=int(made.crop))


def rotated(image: Array, degrees: Array, fill: Any) -> Array:
    """``image[height, width, channels]`` rotated counter-clockwise about its centre, interpolated bilinearly.

    Outside the image every pixel is ``fill``. An angle of 0 changes nothing. Returns float32.
    """
    height, width, _ = image.shape
    radians = jnp.deg2rad(degrees)
    sine, cosine = jnp.sin(radians), jnp.cos(radians)
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    row, column = x * sine + y * cosine + (height - 1) / 2, x * cosine - y * sine + (width - 1) / 2
    top, left = jnp.floor(row), jnp.floor(column)

    def corner(down: int, right: int) -> Array:
        i, j = top.astype(jnp.int32) + down, left.astype(jnp.int32) + right
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        pixel = image[jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)].astype(jnp.float32)
        weight = (row - top if down else top + 1 - row) * (column - left if right else left + 1 - column)
        return weight[..., None] * jnp.where(inside[..., None], pixel, fill)

    return corner(0, 0) + corner(0, 1) + corner(1, 0) + corner(1, 1)


def augmented(key: Key, image: Array, how: Augmentation, fill: Any, wanted: Array | bool = True) -> Array:
    """A random flip, then a random crop, then a random rotation of ``image[height, width, channels]``.

    Args:
      image: float32 or uint8; the result has its type (rounded).
      how: static.
      fill: the pixel outside a rotated image. A crop is taken from the image padded by reflection.
      wanted: bool[]; False returns the image itself.
    """
    one, two, three = jax.random.split(key, 3)
    dtype, shape = image.dtype, image.shape
    if how.flip:
        image = jnp.where(jax.random.bernoulli(one, how.flip) & wanted, image[:, ::-1], image)
    if how.crop:
        sides = (how.crop, how.crop)
        padded = jnp.pad(image, (sides, sides, (0, 0)), mode="reflect")
        corner = jnp.where(wanted, jax.random.randint(two, (2,), 0, 2 * how.crop + 1), how.crop)
        image = jax.lax.dynamic_slice(padded, (*corner, 0), shape)
    if how.rotate:
        image = rotated(image, jnp.where(wanted, jax.random.uniform(three, maxval=how.rotate), 0.0), fill)
        image = jnp.round(image).astype(dtype) if dtype == jnp.uint8 else image
    return image
