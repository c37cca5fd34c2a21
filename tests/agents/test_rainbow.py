"""Rainbow: its two heads, its updates against NumPy, and its special cases without some components."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import EPSILON, clock_at, prioritised_replay, uniform_replay
from categorical_reference import SUPPORT, Categorical, softmax
from q_reference import FIRST, Settings, script
from replay_cases import KEY, SPEC, live, remember

from plasticity.agents import c51, rainbow
from plasticity.agents.rainbow import combined, two_heads
from plasticity.core.types import Agent, StreamSpec
from plasticity.interventions import reset
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.build import build
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear

SMALL = {
    "replay": prioritised_replay(),
    "epsilon": EPSILON,
    "batch_size": 8,
    "update_period": 2,
    "target_period": 3,
    "atoms": 5,
    "v_min": -2.0,
    "v_max": 3.0,
    "network": functools.partial(mlp, widths=()),
    "optimizer": functools.partial(adam, learning_rate=0.01),
}
UNIFORM = uniform_replay()
OFF = {"double": False, "dueling": False, "replay": UNIFORM, "n_step": 1}


def small(spec: StreamSpec = SPEC, *interventions: Intervention, **settings: Any) -> Agent:
    return rainbow(spec, compose(*interventions), **{**SMALL, **settings})


def test_the_two_heads_are_combined_by_hand():
    """Two actions, three atoms: V = (1, 2, 3), A = (4, 0, 1) and (0, 2, 1) with means (2, 1, 1)."""
    outputs = jnp.asarray([[1.0, 2, 3, 4, 0, 1, 0, 2, 1]])
    np.testing.assert_array_equal(combined(outputs, 2, 3), [[[3, 1, 3], [-1, 3, 3]]])
    shifted = outputs.at[0, 3:].add(jnp.asarray([5.0, 6, 7, 5, 6, 7]))  # the same for all actions
    np.testing.assert_allclose(combined(shifted, 2, 3), combined(outputs, 2, 3), atol=1e-6)


def test_the_last_dense_layer_moves_into_the_heads():
    spec = two_heads(mlp(SPEC.observation, 20, widths=(7, 6)), 4, 5)
    params = build(spec).init(KEY)
    shapes = {name: part["kernel"].shape for name, part in params.items()}
    heads = {"value_output": (6, 5), "advantage_output": (6, 20)}
    hidden = {"hidden_0": (3, 7), "value_hidden_0": (7, 6), "advantage_hidden_0": (7, 6)}
    assert shapes == hidden | heads
    assert two_heads(mlp(SPEC.observation, 20, widths=()), 4, 5).heads[0].widths == ()


def test_it_values_actions_by_both_heads():
    agent = small(
        network=functools.partial(mlp, widths=(6,)), epsilon=functools.partial(linear, end=0.0, duration=250_000)
    )
    state = agent.init(KEY, None)
    observation = jnp.asarray(script().observation[:10, 0])
    params = jax.device_get(state.learner.params)

    def head(name: str) -> np.ndarray:
        dense = lambda x, part: x @ part["kernel"] + part["bias"]  # noqa: E731
        return dense(np.maximum(dense(observation, params[f"{name}_hidden_0"]), 0), params[f"{name}_output"])

    advantage = head("advantage").reshape(10, 4, 5)
    logits = head("value")[:, None] + advantage - advantage.mean(1, keepdims=True)
    best = (softmax(logits) @ SUPPORT).argmax(1)
    np.testing.assert_array_equal(agent.play(KEY, state, observation, jnp.asarray(0.0)), best)
    np.testing.assert_array_equal(agent.act(KEY, state, observation, clock_at(10**7)), best)
    assert len(set(best.tolist())) > 1


class Prioritised(Categorical):
    """The reference with priorities by transition; they change after all updates of a step."""

    exponent = 0.7

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.known, self.largest, self.waiting = {}, 1.0, []
        self.stored, self.importance = 0, 0.0

    def store(self, until: int) -> None:
        """Transitions that are complete by step ``until`` get the largest number so far."""
        for end in range(self.stored, until):
            start = end - self.settings.n_step
            for env in range(2):
                if start >= 0 and self.life.step_type[start + 1, env] != FIRST:
                    self.known[start, env] = self.largest
        self.stored = until

    def weights(self, places: Any) -> np.ndarray:
        found = np.array([self.known[place] for place in places])
        return (found.min() / found) ** self.importance

    def learned(self, places: Any, losses: Any) -> None:
        self.waiting += zip(places, losses, strict=True)

    def update_priorities(self) -> None:
        for place, loss in self.waiting:
            self.known[place] = loss**self.exponent
            self.largest = max(self.largest, self.known[place])
        self.waiting = []


@pytest.mark.parametrize("gradient_steps", [1, 2])
def test_updates_agree_with_an_independent_reference(gradient_steps):
    updates = 14 * gradient_steps
    numbers = {"discount": 0.8, "reward_clip": 1.5}
    importance = functools.partial(linear, start=0.2, end=0.9, duration=20)
    kept = prioritised_replay(exponent=0.7, importance=importance)
    agent = small(
        SPEC, remember(updates), dueling=False, n_step=2, gradient_steps=gradient_steps, replay=kept, **numbers
    )
    start = agent.init(KEY, None)
    state, metrics, _ = jax.device_get(jax.jit(functools.partial(live, agent))(start))
    reference = Prioritised(script(), start.learner.params, Settings(0.8, 0, 1.5, 2, True, 0.01, 3))
    losses = []
    for i, batch in enumerate(state.plugins[0]):
        step = 3 + 2 * (i // gradient_steps)
        if i % gradient_steps == 0:
            reference.update_priorities()
            reference.store(step + 1)
        reference.importance = 0.2 + 0.7 * min(step / 20, 1)
        losses.append(reference.update(np.asarray(batch)))
    for mine, theirs in ((state.learner.params, reference.params), (state.learner.target, reference.target)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, theirs)
    wanted = np.reshape(losses, (-1, gradient_steps)).sum(1)
    np.testing.assert_allclose(metrics["loss"][3::2], wanted, rtol=1e-4)
    assert reference.seen["empty"] == 0  # pairs that join two episodes are never sampled
    assert reference.largest > 1
    for case in ("cut", "terminal", "clipped", "other choice"):
        assert reference.seen[case]
    reference.update_priorities()
    stored = state.rest["replay"]
    tree = np.asarray(stored.tree[0]).ravel()[:100].reshape(2, 50)
    expected = np.zeros((2, 50))
    for (t, env), number in reference.known.items():
        expected[env, t] = number
    np.testing.assert_allclose(tree, expected, rtol=1e-4)
    np.testing.assert_allclose(stored.largest, reference.largest, rtol=1e-4)


def test_with_all_parts_off_it_is_c51():
    def whole(agent: Agent) -> Any:
        return jax.device_get(jax.jit(lambda: live(agent, agent.init(KEY, None))[:2])())

    mine, theirs = whole(small(**OFF)), whole(c51(SPEC, compose(), **{**SMALL, "replay": UNIFORM}))
    chex.assert_trees_all_equal(mine, theirs)
    assert theirs[1]["loss"][3::2].all()


@pytest.mark.slow
def test_with_only_its_replay_it_is_c51_with_that_replay():
    kept = prioritised_replay()

    def whole(agent: Agent) -> Any:
        return jax.device_get(jax.jit(lambda: live(agent, agent.init(KEY, None))[:2])())

    mine, theirs = whole(small(**{**OFF, "replay": kept})), whole(c51(SPEC, compose(), **{**SMALL, "replay": kept}))
    chex.assert_trees_all_equal(mine, theirs)


@functools.cache
def ended(**settings: Any) -> Any:
    """The parameters after the script; the target network lags by 20 updates, so the two differ in their choices."""
    agent = small(**(OFF | settings), target_period=20)
    state = jax.jit(lambda: live(agent, agent.init(KEY, None))[0])()
    return jax.tree.leaves(state.learner.params)


@pytest.mark.parametrize(
    ("part", "on"),
    [
        ("double", True),
        ("dueling", True),
        pytest.param("replay", SMALL["replay"], marks=pytest.mark.slow),
        pytest.param("n_step", 3, marks=pytest.mark.slow),
    ],
)
def test_every_part_changes_what_is_learned(part, on):
    before, after = ended(), ended(**{part: on})
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(before, after, strict=False))


def test_who_clears_the_replay_clears_its_priorities():
    agent = small(SPEC, reset(rest=["replay"], modules="last"))

    @jax.jit
    def whole() -> Any:
        state = live(agent, agent.init(KEY, None))[0]
        return state, agent.switch(KEY, state, clock_at(30))

    before, after = (state.rest["replay"] for state in jax.device_get(whole()))
    assert before.tree[0].any()
    assert before.largest != 1
    assert not after.tree[0].any()
    assert (after.largest, after.steps.current_index) == (1, 0)


def test_it_is_refused_by_its_own_name():
    with pytest.raises(ValueError, match=r"agent\.kind: rainbow is not allowed"):
        small(SPEC._replace(discrete=False))
    with pytest.raises(
        ValueError, match=r"agent\.v_max: 0\.5 is not allowed; must include the rewards, which reach 1\.0"
    ):
        small(v_max=0.5)
    with pytest.raises(ValueError, match=r"agent\.atoms: 1 is not allowed"):
        small(atoms=1)
