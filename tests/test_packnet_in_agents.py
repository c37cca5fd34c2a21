"""PackNet in whole agents: what an old task's policy says is the same, bit for bit, after later tasks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, clock_at, one_lane, source, told

from plasticity.core.types import Transition, Visit
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import compose
from plasticity.interventions.restriction import restricted

KEY = jax.random.key(0)
VISITS, STEPS = 3, 14


@pytest.mark.parametrize("name", ["classifier", "sac"])
def test_old_outputs_are_bit_equal_after_later_tasks(name: str) -> None:
    """With a head for each task; of an actor-critic, the actor alone."""
    packnet = INTERVENTIONS["packnet"](tasks=VISITS, retrain=3, batch=4, memory=20)
    if name == "sac":  # old transitions would train the old head
        packnet = compose(restricted(packnet, ["actor"]), INTERVENTIONS["at_switch"](replay="clear"))
    method = compose(INTERVENTIONS["task_heads"](), packnet)
    stream = told(source(name, visits=VISITS, steps=STEPS), method)
    made, world = agent(name, stream.spec, method), stream.make(1)
    learn, switch = jax.jit(made.learn), jax.jit(made.switch)
    reset = jax.jit(world.reset)
    state, timestep = reset(KEY[None], Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    mind, old, said = made.init(KEY, one_lane(timestep)), one_lane(timestep).observation, []
    play = jax.jit(functools.partial(made.play, KEY))
    for visit in range(VISITS):
        timestep = one_lane(timestep)
        for step in range(STEPS):
            now = clock_at(visit * STEPS + step, visit)._replace(step_in_visit=jnp.int32(step))
            key = jax.random.fold_in(KEY, visit * STEPS + step)
            action = made.act(key, mind, timestep.observation, now)
            state, following = world.step(KEY[None], state, action[None], now)
            pair = Transition(timestep, action, one_lane(following))
            mind, _ = learn(key, mind, pair, now)
            timestep = pair.current
        if visit < VISITS - 1:
            entered: Any = clock_at((visit + 1) * STEPS, visit + 1)._replace(step_in_visit=jnp.int32(0))
            mind = switch(KEY, mind, entered)
            state, timestep = reset(KEY[None], Visit(jnp.int32(visit + 1), jnp.int32(visit + 1)), jnp.int32(0))
        seen = made.view(mind, jnp.int32(0), clock_at(0, visit + 1))
        said.append(seen.learner.params)
        assert np.isfinite(np.asarray(play(seen, old, jnp.float32(0)))).all()
    part = "actor" if name == "sac" else None
    views = [params[part] if part else params for params in said]
    old_head = slice(0, stream.spec.actions * (2 if name == "sac" else 1))
    for later in views[1:]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(views[0]):
            new = functools.reduce(lambda tree, entry: tree[entry.key], path, later)
            if "output" in jax.tree_util.keystr(path):  # the first task's head
                leaf, new = leaf[..., old_head], new[..., old_head]
            np.testing.assert_array_equal(leaf, new)
    whole = [mind.learner.params[part] if part else mind.learner.params, views[0]]
    assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, whole), strict=True))
