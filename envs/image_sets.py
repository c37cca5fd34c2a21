"""Named image classification data sets, generated or from local files, brought to one form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from plasticity.core.errors import shown, suggestion
from plasticity.envs import pictures, shapes
from plasticity.envs.data import LAYOUTS, Split, contents, digits, generated, read
from plasticity.envs.pictures import PICTURES
from plasticity.envs.resizing import recoloured, resized
from plasticity.envs.samples import grouped, select
from plasticity.envs.tables import Dataset

GENERATED = (*PICTURES, "shapes")
WITHOUT_FILES = (*GENERATED, "digits")
CLASSES = {name: each.classes for name, each in PICTURES.items()} | {"shapes": shapes.CLASSES}  # of the generated sets


class ImageSet(NamedTuple):
    """The images of one data set: those to learn from, then those held out."""

    name: str
    images: np.ndarray  # uint8[N, side, side, channels]
    labels: np.ndarray  # int32[N]
    learning: int  # the number of images to learn from
    classes: int
    files: tuple[tuple[str, str], ...] = ()  # as in ``StreamSpec.data``

    @property
    def held_out(self) -> int:
        return len(self.labels) - self.learning


class Form(NamedTuple):
    """What every data set is brought to."""

    side: int  # pixels
    channels: Literal[1, 3]

    def of(self, images: np.ndarray) -> np.ndarray:
        return resized(recoloured(images, self.channels), self.side)


def check_names(names: Sequence[str], path: str | None) -> None:
    """``ValueError`` for a name that is given twice or unknown, and for a path that no data set needs."""
    for name in names:
        if list(names).count(name) > 1:
            raise ValueError(f"datasets: {shown(name)} is given twice; the schedule can visit it again")
        if name not in WITHOUT_FILES and path is None:
            known = (*WITHOUT_FILES, *LAYOUTS)
            near = "" if name in known else suggestion(name, known)
            hint = near or f"; without files there are {', '.join(WITHOUT_FILES)}"
            raise ValueError(f"path: missing; it must be the folder that holds the data set {shown(name)}{hint}")
    if path is not None and all(name in WITHOUT_FILES for name in names):
        raise ValueError(f"path: {path} is not allowed; must be null, because no data set is read from a file")


def place_of(name: str, path: str | None) -> str | None:
    """The folder ``path/NAME`` in a published layout, or the file ``path/NAME.npz``; None without files."""
    if path is None or name in WITHOUT_FILES:
        return None
    folder = Path(path).expanduser() / name
    return str(folder if name in LAYOUTS and folder.is_dir() else folder.with_name(f"{name}.npz"))


def image_set(
    name: str, path: str | None, samples: int | None, held_out: float | Literal["test"], form: Form
) -> ImageSet:
    """The data set ``name``; ``held_out``: its test split, or a fraction of each class.

    ``ValueError`` if its files are missing or hold something else, and if a class has no image for learning or for
    evaluation.
    """
    place = place_of(name, path)
    whole = _read(name, place, "train", samples)
    labels = _labels_of(name, whole)
    classes = CLASSES.get(name) or int(labels.max()) + 1
    known = select(whole, samples)
    labels = labels[: len(known.inputs)]
    groups = grouped(labels, classes, f"samples: the {{}} images used of {name} include")
    files = contents(name if name in LAYOUTS else "npz", place, held_out == "test")
    if held_out == "test":
        other = _read(name, place, "test", samples)
        more = _labels_of(name, other)
        if more.max() >= classes:
            raise ValueError(f"path: {name}: labels of the test split must be in 0 ... {classes - 1}, got {more.max()}")
        images = np.concatenate([form.of(known.inputs), form.of(other.inputs)])
        return ImageSet(name, images, np.concatenate([labels, more]), len(labels), classes, files)
    last = np.round(held_out * groups.sizes).astype(np.int32)
    if (last == groups.sizes).any() or (held_out and not last.all()):
        use = "learning" if (last == groups.sizes).any() else "evaluation"
        raise ValueError(f"held_out: {held_out} is not allowed; it leaves no image of a class of {name} for {use}")
    place_in_class = np.arange(len(labels)) - np.repeat(groups.start, groups.sizes)
    kept = place_in_class < np.repeat(groups.sizes - last, groups.sizes)
    order = np.concatenate([np.sort(groups.rows[kept]), np.sort(groups.rows[~kept])])
    return ImageSet(name, form.of(known.inputs[order]), labels[order], int(kept.sum()), classes, files)


def _read(name: str, place: str | None, split: Split, samples: int | None) -> Dataset:
    if name in PICTURES:
        count = pictures.COUNT if samples is None else samples
        if split == "test":
            count = max(count // 5, min(count, PICTURES[name].classes))
        return Dataset(pictures.images(name, count, split == "test"), pictures.labels(name, count))
    if name == "shapes":
        return generated(split, samples)
    if name == "digits" and split == "train":
        found = digits()
        return found._replace(inputs=found.inputs * np.uint8(15))  # 0 ... 16 -> 0 ... 240
    return read(name if name in (*LAYOUTS, "digits") else "npz", place, split)


def _labels_of(name: str, found: Dataset) -> np.ndarray:
    if found.labels is None or found.inputs.dtype != np.uint8:
        raise ValueError(f"path: {name}: the file must have the arrays images and labels, not features or targets")
    return found.labels
