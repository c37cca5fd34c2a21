"""Exploring a new task with the policies of earlier tasks."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Positive, metadata
from plasticity.core.errors import check
from plasticity.core.types import Array, Key
from plasticity.interventions.base import Intervention, Tried

How = Literal["previous", "uniform", "uniform_or_current", "best_return", "softmax_return"]


def latest(key: Key, tried: Tried) -> Array:
    del key
    return tried.previous


def any_old(key: Key, tried: Tried) -> Array:
    return jax.random.categorical(key, jnp.where(tried.ended, 0.0, -jnp.inf)).astype(jnp.int32)


def any_old_or_current(key: Key, tried: Tried) -> Array:
    known = jnp.append(tried.ended, True)
    drawn = jax.random.categorical(key, jnp.where(known, 0.0, -jnp.inf))
    return jnp.where(drawn == len(tried.ended), -1, drawn).astype(jnp.int32)


def mean_returns(tried: Tried) -> Array:
    """The mean return of each old policy in this visit, float32[policies]; 0 if none of its episodes has ended."""
    return tried.returns / jnp.maximum(tried.finished, 1)


def each_once(tried: Tried, then: Array) -> Array:
    """``then``, after an episode of every old policy has ended; before, the policy that is to be tried next."""
    waiting = tried.ended & (tried.finished == 0)
    fewest = jnp.argmin(jnp.where(waiting, tried.begun, jnp.iinfo(jnp.int32).max))
    return jnp.where(jnp.any(waiting), fewest, then).astype(jnp.int32)


def best(key: Key, tried: Tried) -> Array:
    del key
    return each_once(tried, jnp.argmax(jnp.where(tried.ended, mean_returns(tried), -jnp.inf)))


def softmax(temperature: Array | float) -> Callable[[Key, Tried], Array]:
    def drawn(key: Key, tried: Tried) -> Array:
        mean = mean_returns(tried)
        low = jnp.min(jnp.where(tried.ended, mean, jnp.inf))
        high = jnp.max(jnp.where(tried.ended, mean, -jnp.inf))
        score = (mean - low) / (high - low + 1e-6)
        return each_once(tried, jax.random.categorical(key, jnp.where(tried.ended, score / temperature, -jnp.inf)))

    return drawn


@metadata(
    paper="Wolczyk et al. 2022, Disentangling Transfer in Continual Reinforcement Learning",
    checked="choices by hand, and frequencies of random ones; the rules follow public copies of the paper's code",
    only_with={"temperature": {"how": ("softmax_return",)}},
    note="with `behavioural_cloning` of the actor it is ClonEx",
)
def old_policy_exploration(*, how: How = "best_return", temperature: Positive = 1.0) -> Intervention:
    """At the start of a visit, the policies of earlier tasks act instead of random actions.

    In the first ``random_steps`` steps of every visit but the first, each episode is played by one policy, ``k``: the
    agent acts as in task ``k``, by its current parameters, while it stores and learns the transitions of its own task.
    An old policy thus needs an output layer of its own (``task_heads``), or the task as an input (``task_input``), and
    a method that keeps it as it was. With ``G_k`` the mean undiscounted return of the episodes of this visit that
    policy ``k`` has finished:

    * ``previous``: the task of the visit before.
    * ``uniform``: each earlier task is equally likely; ``uniform_or_current``: or the current one.
    * ``best_return``: ``argmax_k G_k``, after each earlier task's policy was tried once, in the order of the tasks.
    * ``softmax_return``: ``p(k) ~ exp(g_k / temperature)``, with ``g_k = (G_k - min G) / (max G - min G + 1e-6)``,
      after each was tried once.

    The step after the last of these steps is the agent's own, also within an episode.

    Args:
        how: which policy. Static. The default is that of ClonEx in COOM's commands (github.com/TTomilin/COOM).
        temperature: of ``softmax_return``. Traced. The default is that of the experiments with the paper's code.

    Raises:
        ValueError: while planning: an agent without random steps, or a policy that does not know the task.

    The rules are those of the paper's code (``exploration_kind``); we read public copies of it, not the whole paper.
    Its ``best_success`` is missing, as agents see no success. In that code a task that recurs has another policy; here
    it has one, which counts as an earlier one too. In several envs, episodes choose one after another. A reset of the
    whole agent at a switch forgets which tasks were visited.
    """
    check("how", how, ("previous", "uniform", "uniform_or_current", "best_return", "softmax_return"))
    rules: Mapping[str, Callable[[Key, Tried], Array]] = {
        "previous": latest,
        "uniform": any_old,
        "uniform_or_current": any_old_or_current,
        "best_return": best,
        "softmax_return": softmax(temperature),
    }
    choose = rules[how]

    def explore(key: Key, tried: Tried) -> Array:
        if len(tried.ended) < 2:
            raise ValueError("needs a policy that knows the task; add task_heads or task_input")
        return choose(key, tried)

    return Intervention(explore=explore, reads_task=True)
