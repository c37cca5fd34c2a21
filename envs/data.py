"""What supervised streams show: the digits of scikit-learn, data sets from files the user names, Gaussian vectors."""

import gzip
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.types import Array, Key


class Images(NamedTuple):
    """Labelled images as bytes."""

    inputs: np.ndarray  # uint8[N, height, width, channels]
    labels: np.ndarray  # int32[N]


def moments(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of all pixels of all images, exactly, from a count of the 256 values."""
    share = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    values = np.arange(256)
    mean = share @ values
    return float(mean), float(np.sqrt(share @ (values - mean) ** 2))


LAYOUTS: Mapping[str, str] = {
    "mnist": (
        "a folder with train-images-idx3-ubyte and train-labels-idx1-ubyte (either may end in .gz),\n"
        "or one .npz file with the arrays images uint8[N, 28, 28] and labels [N]"
    ),
    "cifar10": (
        "a folder with data_batch_1 ... data_batch_5 (the Python version, cifar-10-batches-py),\n"
        "or one .npz file with the arrays images uint8[N, 32, 32, 3] and labels [N]"
    ),
}


def digits() -> Images:
    """1797 handwritten digits of 8 x 8 pixels in 0 ... 16 (Alpaydin, Kaynak 1998, UCI; as shipped by scikit-learn)."""
    from sklearn.datasets import load_digits  # imported here because it takes a second

    pixels, labels = load_digits(return_X_y=True)
    return Images(pixels.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32))


def idx(path: Path) -> np.ndarray:
    """An array from a file in the IDX format (``path`` or ``path.gz``): magic 0 0 8 rank, big-endian sizes, bytes."""
    zipped = path.with_name(path.name + ".gz")
    raw = path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it starts with {raw[:4]!r}")
    rank = raw[3]
    sizes = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def mnist(folder: Path) -> Images:
    """The 60,000 training images from the four-file distribution."""
    images, labels = idx(folder / "train-images-idx3-ubyte"), idx(folder / "train-labels-idx1-ubyte")
    return Images(images[..., None], labels.astype(np.int32))


def cifar10(folder: Path) -> Images:
    """The 50,000 training images from the Python version (pickles: open only files that you trust)."""
    batches = [pickle.loads((folder / f"data_batch_{i}").read_bytes(), encoding="bytes") for i in range(1, 6)]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Images(
        np.ascontiguousarray(images), np.concatenate([batch[b"labels"] for batch in batches]).astype(np.int32)
    )


def archive(path: Path) -> Images:
    """An ``.npz`` file with ``images`` uint8[N, height, width] or [N, height, width, channels], and ``labels`` [N]."""
    with np.load(path) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path}: images must be uint8[N, height, width(, channels)] and labels [N], "
            f"got {images.dtype}{list(images.shape)} and {labels.dtype}{list(labels.shape)}"
        )
    return Images(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


READERS: Mapping[str, Callable[[Path], Images]] = {"mnist": mnist, "cifar10": cifar10}


def read(name: str, path: str | None) -> Images:
    """The images of ``name``, one of digits, mnist, cifar10; the last two from ``path``, in a published format.

    ``ValueError`` names the files expected where ``path`` is missing or lacks them.
    """
    if name == "digits":
        return digits()
    if path is None:
        raise ValueError(f"inputs {name} need a path:\n{LAYOUTS[name]}")
    place = Path(path).expanduser()
    try:
        return archive(place) if place.suffix == ".npz" else READERS[name](place)
    except (OSError, KeyError) as error:
        raise ValueError(f"path {path} does not hold {name} ({error}); expected\n{LAYOUTS[name]}") from error


def select(images: Images, samples: int | None) -> Images:
    """The first ``samples`` of the images; all where it is None. ``ValueError`` where there are fewer."""
    if samples is not None and samples > len(images.inputs):
        raise ValueError(f"samples must be in [1, {len(images.inputs)}] for these inputs, got {samples}")
    return Images(images.inputs[:samples], images.labels[:samples])


class Samples(NamedTuple):
    """The finite set of inputs that a stream shows."""

    size: int
    shape: tuple[int, ...]  # of one input
    labels: Any  # int32[size]; None where there are no true ones
    own: Callable[[Key], Any]  # key -> a lane's own inputs; () where all lanes share them
    rows: Callable[[Any, Any], Array]  # the lane's own inputs, index of rows -> float32[..., *shape]


def gaussian_samples(count: int, dimensions: int) -> Samples:
    """``count`` standard normal inputs for each lane, drawn from its data key once for its whole life."""

    def own(key: Key) -> Array:
        return jax.random.normal(key, (count, dimensions))

    return Samples(count, (dimensions,), None, own, lambda inputs, index: inputs[index])


def image_samples(name: str, path: str | None, count: int | None, flat: bool) -> Samples:
    """Images, shared by all lanes, kept as bytes; standardised when drawn, by one mean and deviation for all pixels.

    The set is a constant of the compiled programs: 150 MB (all of CIFAR-10) add some ten seconds to each compilation.
    """
    images = select(read(name, path), count)
    mean, deviation = moments(images.inputs)
    found, *shape = images.inputs.shape
    shape = [math.prod(shape)] if flat else shape
    pixels = jnp.asarray(images.inputs.reshape(found, *shape))

    def rows(inputs: Any, index: Any) -> Array:
        del inputs
        return (pixels[index].astype(jnp.float32) - mean) / deviation

    return Samples(found, tuple(shape), jnp.asarray(images.labels), lambda key: (), rows)
