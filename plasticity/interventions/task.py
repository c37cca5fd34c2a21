"""Methods that are told the task: as an input, or by an output layer for each task."""

from dataclasses import replace

from plasticity.config.fields import metadata
from plasticity.interventions.base import Intervention

CONTINUAL_WORLD = "Wolczyk et al. 2021, Continual World: A Robotic Benchmark For Continual Reinforcement Learning"


@metadata(
    paper=CONTINUAL_WORLD,
    checked="a network in NumPy that reads the one-hot; for images, planes put there by hand",
    note="`hide_task_id: false` in its code (github.com/awarelab/continual_world); not its default",
)
def task_input() -> Intervention:
    """The network also reads the task: ``x <- [x, e_k]``, ``e_k`` the one-hot of the current task k.

    It is appended to vectors at the end, and to images as constant planes, one for each task; a dense network reads it
    at each position of an image. Normalisers of observations leave it as it is.

    Every observation carries the task in which it was made: a replayed transition of an earlier task, an evaluation on
    another task and a monitor see the task of the observation, not the current one. With a schedule in a different
    order for each seed, it is the lane's own task. The arm must be `task_aware: true`.

    Raises:
        ValueError: while planning, for a stream with a single task or with observations that are not one array, and
            for a network given as functions.
    """
    return Intervention(network=lambda spec: replace(spec, sees_task=True), sets=("sees_task",), reads_task=True)


@metadata(
    paper=CONTINUAL_WORLD,
    checked="the linear map of each row's task in NumPy, row by row",
    note="`multihead_archs: true` in its code (github.com/awarelab/continual_world), as in task-incremental learning: "
    "van de Ven, Tolias 2019, Three scenarios for continual learning",
)
def task_heads() -> Intervention:
    """An output layer for each task, on common hidden layers: ``y = W_k phi(x) + b_k`` in task k.

    Every output layer is replaced by one for each task: those of policy and value, of actor and critics, of both heads
    of a dueling network, whose own hidden layers stay common. The hidden layers do not see the task, as with
    ``hide_task_id: true`` (the default of Continual World's code); together with :func:`task_input` they do.

    The layers of all tasks are one module ``[inputs, tasks x outputs]``, task by task. An update changes, by gradient,
    those of the tasks in its batch alone; an optimizer with momentum or a penalty may still move the others. Each is
    initialised by itself like the layer that it replaces, and the first task's has the same initial values as without
    this method. A reset of the module resets those of all tasks. The auxiliary layer of `infer` and a standard
    deviation that does not depend on the observation are common to all tasks.

    Observations carry the task as with :func:`task_input`, so that a replayed transition, an evaluation or a monitor
    uses the layers of the task of the observation. The arm must be `task_aware: true`.

    Raises:
        ValueError: as for :func:`task_input`.
    """
    return Intervention(network=lambda spec: replace(spec, task_heads=True), sets=("task_heads",), reads_task=True)
