"""Modulation of a frozen network: small changes of its layers, for each task or found by keys."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from plasticity.config.fields import Count, NonNegative, Size, metadata
from plasticity.core import trees
from plasticity.core.errors import check, check_least
from plasticity.core.types import Array, Context, Key, Learner, ModulePath, Network, Optimizer, Params, State
from plasticity.interventions.base import Intervention
from plasticity.networks.modulation import FROZEN, Modulation, is_frozen
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import wrap

Form = Literal["low_rank", "scale"]
Choose = Literal["keys", "task"]
Freeze = Literal["switch", "update"]
Outputs = Literal["learn", "frozen"]
Alpha = Annotated[float, Field(gt=0, lt=math.inf)]


class Seen(NamedTuple):
    """What the method remembers."""

    frozen: Array  # bool[]: the networks have been frozen
    updates: Array  # int32[]: number of updates when the last one was seen; -1: none


def under(path: ModulePath, module: ModulePath) -> bool:
    return path[: len(module)] == module


def moves(path: ModulePath, params: Params, network: Network) -> Array | bool:
    """bool[]: whether the optimizer may change the numbers at this path."""
    for record in network.modulated:
        if under(path, (*record.path, FROZEN)):
            return False
        if under(path, record.path):
            return is_frozen(trees.get(params, record.path))
        if any(under(path, module) for module in record.torso):
            return ~is_frozen(trees.get(params, record.path))
    return True


def without_held(optimizer: Optimizer) -> Optimizer:
    """The optimizer, whose updates of parameters that may not move are 0."""

    def update(
        updates: Params, state: Any, params: Params = None, *, network: Network, **extra: Any
    ) -> tuple[Params, Any]:
        del extra

        def kept(path: ModulePath, u: Array) -> Array:
            return jnp.where(moves(path, params, network), u, 0)

        return trees.map_with_path(kept, updates), state

    return wrap(optimizer, after=optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))


def marked(params: Params, network: Network, mark: Callable[[Array], Array]) -> Params:
    """The parameters with ``mark(frozen)`` in place of what says whether a network is frozen."""
    for record in network.modulated:
        path = (*record.path, FROZEN)
        params = trees.put(params, path, mark(trees.get(params, path)))
    return params


def kept_marks(seen: Seen, params: Params, network: Network) -> Params:
    """Marks of exactly 0 or 1 again: noise on all parameters must not freeze a network.

    A 0 after the freeze is that of a network that was initialised again.
    """
    return marked(params, network, lambda mark: jnp.where(seen.frozen & (mark != 0), 1.0, 0.0))


@metadata(
    paper="Schmied, Hofmarcher, Paischer, Pascanu, Hochreiter 2023, Learning to Modulate pre-trained Models in RL",
    checked="outputs, choices and the pull of keys in NumPy, row by row; forms and defaults follow released code, "
    "the papers could not be read",
    only_with={
        "at": {"freeze": ("update",)},
        "size": {"choose": ("keys",)},
        "strength": {"choose": ("keys",)},
        "rank": {"form": ("low_rank",)},
        "alpha": {"form": ("low_rank",)},
    },
    note="list it last among the interventions that wrap the optimizer; with `choose: task` the arm is told the task",
)
def modulation(
    *,
    form: Form = "low_rank",
    choose: Choose = "keys",
    freeze: Freeze = "switch",
    at: Count = 100_000,
    size: Size = 30,
    rank: Size = 8,
    alpha: Alpha = 16.0,
    strength: NonNegative = 0.5,
    outputs: Outputs = "learn",
) -> Intervention:
    """Modulation of a frozen network, the core of Learning-to-Modulate (L2M).

    The network learns as without the method (pre-training) until it is frozen. From then on its hidden layers stay as
    they are, and only modulators of them learn, each row of a batch its own one, ``k``:

        ``low_rank``: ``z = x (W + (alpha / rank) A_k B_k) + b``, with ``A_k [inputs, rank]``, ``B_k [rank, units]``

        ``scale``: ``h = l_k * f(z)``, with ``l_k [units]``, behind the non-linearity

    for every dense hidden layer and convolution (of whose channels ``l_k`` scales each, and whose ``A_k`` is a
    convolution). At first ``B_k = 0`` and ``l_k = 1``, so that nothing changes. The first is LoRA (Hu et al. 2022), the
    second is (IA)^3 (Liu et al. 2022). With ``choose: task``, ``k`` is the task of the row. With ``choose: keys`` the
    task is not told:

        ``k = argmax_i cos(q, key_i)``, and ``strength mean(1 - cos(q, key_k))`` is added to the loss

    where ``q`` are the features of the row that the heads read, computed by the network without modulation, which
    costs a second pass through its hidden layers. The term moves the chosen keys only; the choice itself has no
    gradient. The modulators of joined networks (actor, critics) are their own, each with its own keys.

    Args:
        form: of the modulators (static).
        choose: by similarity to learned keys, or by the task (static).
        freeze: at the first task switch, or after the update ``at`` (static).
        at: number of updates before the freeze (static).
        size: number of modulators and keys (static). With ``choose: task`` there is one for each task.
        rank: of the change of a kernel (static).
        alpha: static.
        strength: of the term that pulls keys (traced).
        outputs: whether the output layers go on learning once the network is frozen (static).

    Raises:
        ValueError: for an unknown name or a number out of its range; while tracing, for a network without a dense
            hidden layer or convolution, for ``keys`` with a network with memory, and for frozen outputs with
            :func:`task_heads`, whose later tasks would never learn theirs.

    Frozen are all hidden layers, their normalisations and non-linearities, and recurrent and attention layers, which
    have no modulators; not numbers in no layer, such as a temperature. They are protected from the gradient and from
    all that the optimizer adds to its step (momentum, weight decay), but not from interventions listed after this one
    or from those that write parameters; a network that projects its kernels (``simba_v2``) does so again, up to
    rounding. Before the freeze, modulators and keys do not move. A network that is reset as a whole learns as without
    the method from then on. Updates count as in :func:`plasticity_injection`.

    With ``choose: task`` and :func:`task_heads`, what a network says in an earlier task does not change by gradient.
    Momentum from the earlier task may still change it; ``optimizer_reset`` with ``what: slots`` at switches prevents
    that. With :func:`task_input`, or without either, outputs that learn are common to all tasks.

    What is not here: L2M modulates a decision transformer that was pre-trained on data of many tasks, builds the query
    from the embedded states of a whole context, and in its code (github.com/ml-jku/L2M) scales similarities in training
    by how rarely a key was chosen in earlier tasks and can have keys of pre-training without modulation. The query of
    one row from the unmodulated network is as in L2P (Wang et al. 2022). ``size``, ``rank``, ``alpha / rank = 2``, keys
    ``U(-1, 1)`` and the two forms are those of L2M's code, and ``A ~ U(-1 / sqrt(inputs), 1 / sqrt(inputs))`` that of
    LoRA's (github.com/microsoft/LoRA). ``strength`` is from code for L2P by others. Outputs that learn, and ``A_k``
    of a convolution, are ours. The papers' texts could not be read. Scales are stored as ``l - 1``, so that decay moves
    them to 1.
    """
    check("freeze", freeze, ("switch", "update"))
    check("outputs", outputs, ("learn", "frozen"))
    check_least("at", at, 1)
    made = Modulation(form, choose, size, rank, alpha, outputs == "learn")

    def network(spec: NetworkSpec) -> NetworkSpec:
        own = replace(made, size=max(spec.task_entries, 1)) if choose == "task" else made
        return replace(spec, modulation=own)

    def init(key: Key, params: Params, network: Network) -> State:
        del key, params
        if outputs == "frozen" and network.task_heads:
            raise ValueError('outputs: frozen is not allowed with task_heads; must be "learn"')
        return Seen(jnp.zeros((), bool), jnp.full((), -1, jnp.int32))

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state, params
        return strength * sum(map(pulled, choices(context)), jnp.zeros(()))

    def step(key: Key, state: Seen, learner: Learner, context: Context) -> tuple[Seen, Learner]:
        del key
        now = context.clock.update + 1
        params = kept_marks(state, learner.params, context.network)
        frozen = state.frozen
        if freeze == "update":
            # A learner that is created after `at` starts with the whole network, as after any other reset.
            due = ~frozen & (now >= at) & jnp.where(state.updates < 0, now == at, state.updates < at)
            params = marked(params, context.network, lambda mark: jnp.where(due, 1.0, mark))
            frozen = frozen | due
        return Seen(frozen, now), learner._replace(params=params)

    def switch(key: Key, state: Seen, learner: Learner, context: Context) -> tuple[Seen, Learner]:
        del key
        first = ~state.frozen
        params = marked(learner.params, context.network, lambda mark: jnp.where(first, 1.0, mark))
        return state._replace(frozen=jnp.ones((), bool)), learner._replace(params=params)

    hooks: dict[str, Any] = {"network": network, "optimizer": without_held, "init": init, "step": step}
    hooks |= {"penalty": penalty} if choose == "keys" else {}
    hooks |= {"switch": switch} if freeze == "switch" else {}
    return Intervention(sets=("modulation",), reads_task=choose == "task", **hooks)


def choices(context: Context) -> list[Any]:
    """The activations that say how modulators were chosen: similarities ``[B, size]``, and the choice as 0 and 1."""
    return [context.activations["/".join(record.path)] for record in context.network.modulated]


def pulled(choice: Any) -> Array:
    """``mean(1 - cos(q, key_k))`` over the rows."""
    return jnp.mean(1.0 - jnp.sum(choice.pre * jax.lax.stop_gradient(choice.post), axis=-1))
