"""A stream of image classification data sets in the order of time."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Size, metadata
from plasticity.core.types import Array, Key, StreamSpec, Supervised, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.held_out import HeldOut
from plasticity.envs.image_sets import Form, ImageSet, check_names, image_set
from plasticity.envs.images import Standardise, augmentation_of, augmented, channel_moments, moments
from plasticity.envs.label_noise import LabelNoise, Shares, noise_of, noisy_label, replaced_labels
from plasticity.envs.samples import AUGMENT
from plasticity.envs.supervised import accuracy, label_spec, learns, stream_of, supervised_task

Names = Annotated[list[str], Field(min_length=1, max_length=1000)]


class Shown(NamedTuple):
    """The images of one visit."""

    dataset: Array  # int32[]
    first: Array  # int32[]: the rows first ... first + number - 1 are shown
    number: Array
    learning: Array  # bool[]: False in an evaluation
    replaced: Any = ()  # int32[images to learn from, of the largest data set], of ``label_noise``


class Scale(NamedTuple):
    """Pixels of each data set in units of an input: ``(pixel - mean) / deviation``, float32[datasets, channels]."""

    mean: np.ndarray
    deviation: np.ndarray


def scale_of(sets: Sequence[ImageSet], standardise: Standardise) -> Scale:
    """Means and deviations over the images to learn from: of all pixels, or of each channel.

    ``ValueError`` if a deviation is 0.
    """
    found = []
    for each in sets:
        images = each.images[: each.learning]
        channels = images.shape[-1]
        mean, deviation = channel_moments(images)
        if standardise == "all":
            mean, deviation = (np.full(channels, number, np.float32) for number in moments(images))
        if standardise != "none" and not np.all(deviation):
            raise ValueError(f"datasets: {each.name} cannot be standardised; all its pixels have the same value")
        found.append((mean, deviation))
    return Scale(*(np.stack(array) for array in zip(*found, strict=True)))


@metadata(
    paper="Bornschein et al. 2022, NEVIS'22: A Stream of 100 Tasks Sampled from 30 Years of Computer Vision Research",
    example={"datasets": ["colours", "textures", "glyphs"], "steps_per_task": 1000},
)
def image_datasets(
    *,
    datasets: Names = ["colours", "textures", "silhouettes", "glyphs"],  # noqa: B006 (read only)
    path: str | None = None,
    samples: Count | None = None,
    side: Size = 32,
    colour: bool = True,
    flat: bool = True,
    standardise: Standardise = "all",
    augment: dict[str, float] = {},  # noqa: B006 (read only)
    outputs: Literal["shared", "separate"] = "shared",
    label_noise: Shares = 0.0,
    held_out: HeldOut = 0.2,
    steps_per_task: Count = 1000,
    envs: Size = 32,
) -> StreamFactory:
    """Image classification data sets one after another, each with its own classes; reward = accuracy.

    Bornschein et al. 2022, "NEVIS'22: A Stream of 100 Tasks Sampled from 30 Years of Computer Vision Research": tasks
    in the order of time, and learners compared by their error and the FLOPs that they spend (the column ``flops`` of
    the tables). Task ``u`` draws images of data set ``u`` uniformly. The recorded accuracy is prequential: each
    prediction precedes learning from its label (but images are drawn with replacement). The ``evaluation`` of a run is
    the accuracy on images held out.

    All settings are static. ``datasets``: in this order. Generated, without files: ``colours`` (8 classes),
    ``textures`` (6), ``silhouettes`` (5), ``glyphs`` (10), ``counts`` (4), ``shapes`` (100) and ``digits`` (10, of
    scikit-learn). Any other NAME is ``path/NAME.npz``, with ``images`` and ``labels``, or, if it is a published data
    set such as ``mnist`` or ``cifar10``, also its folder ``path/NAME``. ``samples``: at most so many images of each,
    the first ones; by default all, and 2,000 of a generated set (50,000 of ``shapes``). ``side``, ``colour``: images
    are stretched to ``side`` x ``side`` pixels by bilinear interpolation and made of three channels or one.
    ``standardise``: by the moments of each data set's images to learn from, of all pixels or of each channel.
    ``outputs``: ``shared``, class ``k`` of every data set is output ``k`` (as many as the largest set has; the method
    ``task_heads`` gives each data set its own); ``separate``, every class of every data set has its own output.
    ``held_out``: the last images of each class, or ``test``: the test split (of a generated set, a fifth as many
    images); 0 evaluates on the images to learn from. ``label_noise``: as in ``relabelled``, over the classes of the
    data set. The other settings are those of ``relabelled``.

    ``ValueError`` for an unknown name, missing or other files, and a class without images to learn from or to evaluate.
    The paper's baselines use 64 x 64 pixels, a ResNet-34, minibatches of 256 and a search of hyper-parameters on each
    task, whose FLOPs count too; they crop images at random where this stream stretches them.
    """
    check_names(datasets, path)
    form = Form(side, 3 if colour else 1)
    sets = [image_set(name, path, samples, held_out, form) for name in datasets]
    classes = [each.classes for each in sets]
    offsets = np.concatenate([[0], np.cumsum(classes)[:-1]]) if outputs == "separate" else np.zeros(len(sets), int)
    draw = drawing(sets, scale_of(sets, standardise), augment, flat, standardise == "none", offsets)
    spec = _spec(sets, form, sum(classes) if outputs == "separate" else max(classes), steps_per_task, envs)
    shape = (form.side * form.side * form.channels,) if flat else (form.side, form.side, form.channels)
    inputs = jax.ShapeDtypeStruct(shape, jnp.uint8 if standardise == "none" else jnp.float32)
    spec = spec._replace(observation=spec.observation._replace(input=inputs))
    noise = noise_of(label_noise, max(each.learning for each in sets))
    return stream_of(supervised_task(spec, showing(sets, noise), draw, accuracy))


def _spec(sets: Sequence[ImageSet], form: Form, outputs: int, steps: int, envs: int) -> StreamSpec:
    spec = label_spec((form.side, form.side, form.channels), outputs, "dataset", len(sets), steps, envs)
    files = tuple(file for each in sets for file in each.files)
    return spec._replace(tasks=tuple(each.name for each in sets), data=files)


def showing(sets: Sequence[ImageSet], noise: LabelNoise | None) -> Any:
    """The function ``params`` of the stream: which rows a visit shows."""
    start = jnp.asarray(np.cumsum([0, *(len(each.labels) for each in sets[:-1])]), jnp.int32)
    learning = jnp.asarray([each.learning for each in sets], jnp.int32)
    held_out = jnp.asarray([each.held_out for each in sets], jnp.int32)

    classes = jnp.asarray([each.classes for each in sets], jnp.int32)

    def params(key: Key, visit: Visit) -> Shown:
        first, own, other = start[visit.task], learning[visit.task], held_out[visit.task]
        training = learns(visit) | (other == 0)
        task = jnp.asarray(visit.task, jnp.int32)
        replaced = replaced_labels(noise, key, visit, classes[visit.task])
        return Shown(task, first + jnp.where(training, 0, own), jnp.where(training, own, other), training, replaced)

    return params


def drawing(
    sets: Sequence[ImageSet], scale: Scale, augment: Mapping[str, float], flat: bool, raw: bool, offsets: np.ndarray
) -> Any:
    """The function ``draw`` of the stream: a uniformly drawn image of a visit, and its label.

    All images are one constant of the compiled programs. ``raw``: bytes; else standardised.
    """
    pixels = jnp.asarray(np.concatenate([each.images for each in sets]))
    labels = jnp.asarray(np.concatenate([each.labels for each in sets]).astype(np.int32))
    before = jnp.asarray(offsets, jnp.int32)  # outputs of the data sets before
    mean, deviation = map(jnp.asarray, scale)
    how = augmentation_of(augment, pixels.shape[1:])

    def draw(key: Key, shown: Shown) -> Supervised:
        place = jax.random.randint(key, (), 0, shown.number)
        row = shown.first + place
        image, fill = pixels[row], mean[shown.dataset] if raw else 0.0
        if not raw:
            image = (image.astype(jnp.float32) - mean[shown.dataset]) / deviation[shown.dataset]
        if any(how):
            image = augmented(jax.random.fold_in(key, AUGMENT), image, how, fill, shown.learning)
        label = before[shown.dataset] + noisy_label(shown.replaced, place, labels[row])
        return Supervised(image.ravel() if flat else image, label)

    return draw
