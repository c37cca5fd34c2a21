"""Classification as a Markov decision process."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import permutation, schedule
from plasticity.envs.data import OF_INPUTS, Inputs
from plasticity.envs.samples import Samples, classes_of, samples_of
from plasticity.envs.supervised import INPUTS, LABELS, stream_of


class Images(NamedTuple):
    """The observations of one visit."""

    inputs: Any  # the lane's inputs, fixed for the run, or ()
    order: Array  # int32: the class of each state, [states], or rows sorted by state


class Views(NamedTuple):
    """The mapping from states to images."""

    states: int
    order: Callable[[Key, Array], Array]  # key, task -> Images.order
    row: Callable[[Key, Array, Array], Array]  # key, Images.order, state -> row


def true_views(data: Samples, relabel: bool) -> Views:
    """State ``s`` shows a uniformly drawn image of class ``order[s]``; in task 0, of class ``s``."""
    groups = classes_of(data)
    rows, start, count = (jnp.asarray(array) for array in groups)
    states = len(groups.sizes)

    def order(key: Key, task: Array) -> Array:
        return permutation(key, task if relabel else jnp.zeros_like(task), states)

    def row(key: Key, order: Array, state: Array) -> Array:
        shown = order[state]
        return rows[start[shown] + jax.random.randint(key, (), 0, count[shown])]

    return Views(states, order, row)


def random_views(data: Samples, relabel: bool, states: int) -> Views:
    """Each state has its own random set of images, of equal size; leftover images are never shown."""
    each = data.size // states
    if each == 0:
        raise ValueError(f"samples: {data.size} is not allowed; must be at least {states}, one for each class")

    def order(key: Key, task: Array) -> Array:
        return jax.random.permutation(jax.random.fold_in(key, task if relabel else 0), data.size)[: each * states]

    return Views(states, order, lambda key, order, state: order[state * each + jax.random.randint(key, (), 0, each)])


def classification_task(spec: StreamSpec, data: Samples, views: Views, sparse: bool) -> Task:
    """``state, image -> state'``; see :func:`classification_mdp`."""

    def observe(key: Key, problem: Images, state: Array) -> tuple[Array, Array]:
        return state, data.rows(problem.inputs, views.row(key, problem.order, state))

    def params(key: Key, visit: Visit) -> Images:
        order = views.order(jax.random.fold_in(key, LABELS), visit.task)
        return Images(data.for_lane(jax.random.fold_in(key, INPUTS)), order)

    def reset(key: Key, problem: Images) -> tuple[Array, Array]:
        one, two = jax.random.split(key)
        return observe(two, problem, jax.random.randint(one, (), 0, views.states))

    def step(key: Key, state: Array, action: Array, problem: Images) -> tuple[Array, Array, Array, Array, Array]:
        one, two = jax.random.split(key)
        right = action == state
        following = jax.random.randint(one, (), 0, views.states)
        if sparse:
            following = jnp.where(right, (state + 1) % views.states, following)
        reward = right & (state == views.states - 1) if sparse else right
        return *observe(two, problem, following), reward, jnp.ones(()), jnp.zeros((), bool)

    return Task(spec, params, reset, step)


@metadata(
    paper="Lyle et al. 2023, Understanding plasticity in neural networks",
    example={"mdp": "true_label", "change": "labels", "tasks": 5, "steps_per_task": 2000},
    only_with={**OF_INPUTS, "classes": {"mdp": ("random_label",)}},
)
def classification_mdp(
    *,
    mdp: Literal["true_label", "random_label", "sparse"] = "true_label",
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Size = 64,
    classes: Size = 10,
    change: Literal["none", "labels"] = "none",
    tasks: Tasks = 10,
    steps_per_task: Count = 10_000,
    envs: Size = 1,
) -> StreamFactory:
    """A Markov decision process with one state and one action per class; a state is observed as an image of its class.

    ``true_label``: reward 1 if the action equals the state, else 0; the next state is uniform regardless of the action.
    ``random_label``: the same, but each image is assigned a random class (in equal numbers) instead of its own.
    ``sparse``: reward 1 if action and state are the last class, else 0; the next state is ``s + 1`` (0 after the last)
    if the action equals the state, else uniform. In every step the image is redrawn from those of the state. The
    process is continuing: the discount is 1, no episode ends, and performance is the mean reward. Lyle et al. 2023,
    "Understanding plasticity in neural networks", measure how fast a network learns new targets after TD learning here.

    All settings are static. ``classes``: number of states, for ``random_label`` only; the others have one state per
    true label. ``change``, between visits: ``none``, the same task again; ``labels``, different classes for the states
    (images reassigned at random, or a permutation of the true classes, the identity in task 0). The transforms
    ``permute_observations`` and ``permute_actions`` provide the other changes. ``tasks``: number of visits, each of
    ``steps_per_task`` steps. The other settings are those of ``relabelled``.

    ``ValueError`` if files are missing, and for inputs without labels if true labels are needed. The paper does not
    specify what follows the last state of ``sparse``.
    """
    data = samples_of(inputs, path, samples, flat, dimensions)
    relabel = change == "labels"
    views = random_views(data, relabel, classes) if mdp == "random_label" else true_views(data, relabel)
    names = tuple(f"labels_{i}" for i in range(tasks)) if relabel else ("classes",)
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct(data.shape, jnp.float32),
        actions=views.states,
        tasks=names,
        visits=schedule(len(names), tasks, steps_per_task),
        envs=envs,
        episodic=False,
        reward_range=(0, 1),
        data=data.files,
    )
    return stream_of(classification_task(spec, data, views, mdp == "sparse"))
