"""A method either changes what an agent learns or is refused by name; none is accepted without effect."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, clock_at, one_lane, source, told
from method_cases import CASES, REFUSED

from plasticity.agents import AGENTS
from plasticity.core.types import Transition, Visit
from plasticity.interventions import hooks
from plasticity.interventions.base import Intervention
from plasticity.optim.schedules import linear

SOON = ("classifier",)  # now; the others are slow tests
STEPS = {
    "dqn": 16,
    "c51": 16,
    "rainbow": 16,
    "stream_dqn": 10,
    "td3": 20,
}  # of a visit, in which everything acts at least once

RELATIVE, ABSOLUTE = 1e-4, 1e-6  # another program rounds differently, which is not an effect


def life(name: str, *methods: Intervention, real: bool | None = None, **changes: Any) -> list[np.ndarray]:
    """Everything that the agent has learned and recorded after two visits with a switch between them."""
    steps = STEPS.get(name, 10)
    stream = told(source(name, real, visits=2, steps=steps), *methods)
    changes = {"epsilon": functools.partial(linear, end=0.01, duration=10)} | changes
    made = agent(name, stream.spec, *methods, **changes)  # exploration changes even in so short a life
    world = stream.make(1)

    @jax.jit  # compiled once for both visits
    def visit(carry: Any, start: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            mind, state, timestep = carry
            key = jax.random.fold_in(jax.random.key(5), i)
            now = clock_at(i, i // steps)._replace(step_in_visit=i % steps)
            action = made.act(jax.random.fold_in(key, 0), mind, timestep.observation, now)
            state, following = world.step(jax.random.key(7)[None], state, action[None], now)
            pair = Transition(timestep, action, one_lane(following))
            mind, metrics = made.learn(jax.random.fold_in(key, 1), mind, pair, now)
            return (mind, state, pair.current), metrics

        return jax.lax.scan(step, carry, start + jnp.arange(steps))

    @jax.jit
    def enter(number: Any) -> Any:
        state, timestep = world.reset(jax.random.key(7)[None], Visit(number, number), jnp.int32(0))
        return state, one_lane(timestep)

    @jax.jit
    def switched(mind: Any) -> Any:
        return made.switch(jax.random.key(6), mind, clock_at(steps, 1))

    state, timestep = enter(jnp.int32(0))
    mind = jax.jit(made.init)(jax.random.key(5), timestep)
    (mind, *_), first = visit((mind, state, timestep), jnp.int32(0))
    (mind, *_), second = visit((switched(mind), *enter(jnp.int32(1))), jnp.int32(steps))
    chex.assert_tree_all_finite(mind.learner.params)
    return [np.asarray(leaf) for leaf in jax.tree.leaves((mind.learner.params, first, second))]


@functools.cache
def undisturbed(name: str, real: bool | None = None) -> list[np.ndarray]:
    return life(name, real=real)


def differs(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """By more than rounding."""
    shapes = [x.shape for x in a] != [x.shape for x in b]
    return shapes or any(not np.allclose(x, y, RELATIVE, ABSOLUTE, equal_nan=True) for x, y in zip(a, b, strict=True))


def refuse(name: str, label: str, case: str, method: Intervention, seen: hooks.Seen) -> None:
    """Raise ``ValueError`` as a plan does: while the method is traced, or because a hook was not called."""
    life(name, method)
    raise ValueError(str(list(hooks.unused({label: CASES[case]()}, seen))))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=[] if name in SOON else pytest.mark.slow)
        for name in sorted(AGENTS)
        for case in CASES
    ],
)
def test_a_method_is_refused_by_name_or_changes_the_numbers(name: str, case: str) -> None:
    label, seen = f"interventions.{case}", set()
    method = hooks.labelled(label, CASES[case](), seen)
    if name in REFUSED.get(case, ()):
        with pytest.raises(ValueError, match=f"{label}|agent.kind: {name} needs a network"):  # the method or the agent
            refuse(name, label, case, method, seen)
        return
    made = life(name, method)
    assert not list(hooks.unused({label: CASES[case]()}, seen))
    assert differs(made, undisturbed(name)), "accepted, and without effect"


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if "stream_ac" not in REFUSED.get(case, ())])
def test_a_method_changes_what_is_learned_from_real_valued_actions(case: str) -> None:
    """Of the agent whose other tests have discrete actions."""
    assert differs(life("stream_ac", CASES[case](), real=True), undisturbed("stream_ac", real=True))
