"""Which policy acts at each step of a visit, by hand: an actor whose action says the task that it acts in."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, program, run, source, uniform_replay

from plasticity.agents.explorers import EXPLORER
from plasticity.agents.past import PAST
from plasticity.core.task_entries import appended, replaced
from plasticity.core.types import FIRST, LAST, MID, Clock, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention
from plasticity.interventions.exploration import old_policy_exploration
from plasticity.interventions.restriction import restricted
from plasticity.interventions.task import task_heads, task_input

KEY = jax.random.key(2)
TASKS, RANDOM = 4, 9  # random steps of each visit
ACTIONS = np.array([-0.8, -0.3, 0.3, 0.8], np.float32)  # of the policy of each task
RETURNS = np.array([1.0, 9.0, 2.0, 3.0], np.float32)  # of an episode that one of them plays
RANDOMLY = -9


def spec_of(envs: int, entries: int = TASKS) -> StreamSpec:
    shape = jax.ShapeDtypeStruct((2 + entries,), jnp.float32)
    visits = tuple(VisitPlan(task, 12) for task in (2, 0, 3))
    spec = StreamSpec(shape, 1, ("a", "b", "c", "d"), visits, envs, False, action_bounds=((-1.0,), (1.0,)))
    return spec._replace(task_entries=entries)


def made_of(envs: int, *methods: Intervention, name: str = "td3", **changes: Any) -> Any:
    """An agent that never learns, so that its policies stay."""
    settings: dict[str, Any] = {"random_steps": RANDOM, "replay": uniform_replay(100, 100), "exploration_noise": 0.0}
    return agent(name, spec_of(envs), *methods, **(settings | changes))


def telling(state: Any) -> Any:
    """The agent, the policy of task k of which takes action k whatever it sees."""
    actor = state.learner.params["actor"]
    output = {"kernel": jnp.zeros_like(actor["output"]["kernel"]), "bias": jnp.arctanh(jnp.asarray(ACTIONS))}
    params = {**state.learner.params, "actor": {**actor, "output": output}}
    return state._replace(learner=state.learner._replace(params=params))


def actors(action: Any) -> list[int]:
    """The task whose policy took each env's action."""
    distance = np.abs(np.asarray(action) - ACTIONS)
    return [int(each.argmin()) if each.min() < 1e-5 else RANDOMLY for each in distance]


class World:
    """Episodes of two transitions, of lengths that are equal in all envs, and what each env's policy is paid."""

    def __init__(self, made: Any, state: Any, envs: int) -> None:
        self.act, self.learn, self.switch = (jax.jit(each) for each in (made.act, made.learn, made.switch))
        self.state, self.envs, self.step = state, envs, 0

    def shown(self, kind: int, reward: Any, task: int) -> TimeStep:
        seen = appended(jnp.zeros((self.envs, 2)), jnp.int32(task), TASKS)
        each = jnp.ones(self.envs)
        return TimeStep((kind * each).astype(jnp.int8), jnp.asarray(reward * each, jnp.float32), each, seen)

    def visit(self, number: int, task: int, steps: int) -> list[list[int]]:
        """Who acts at each step, for each env."""
        found, now, reward = [], self.shown(FIRST, 0.0, task), np.zeros(self.envs)
        for step in range(steps):
            clock = Clock(*(jnp.int32(each) for each in (self.step, self.step, number, step)))
            key = jax.random.fold_in(KEY, self.step)
            action = self.act(key, self.state, now.observation, clock)
            found.append(actors(action))
            kind = (MID, LAST, FIRST)[step % 3]
            reward = np.array([RETURNS[who] / 2 if who >= 0 else 0.0 for who in found[-1]])
            after = self.shown(kind, 0.0 if kind == FIRST else reward, task)
            self.state, _ = self.learn(key, self.state, Transition(now, action, after), clock)
            now, self.step = after, self.step + 1
        return found

    def enter(self, number: int) -> None:
        clock = Clock(*(jnp.int32(each) for each in (self.step, self.step, number, 0)))
        self.state = self.switch(jax.random.fold_in(KEY, self.step), self.state, clock)


def world(envs: int, *methods: Intervention, **changes: Any) -> World:
    made = made_of(envs, *methods, **changes)
    return World(made, telling(made.init(KEY, None)), envs)


def test_the_best_policy_explores_after_each_was_tried() -> None:
    """Visits to tasks 2, 0, 3: an episode is three steps, of which the third starts the next one."""
    life = world(1, task_heads(), old_policy_exploration())
    assert life.visit(0, 2, 11) == [[RANDOMLY]] * RANDOM + [[2]] * 2
    life.enter(1)
    assert life.visit(1, 0, 12) == [[2]] * RANDOM + [[0]] * 3
    tried = life.state.rest[EXPLORER].tried
    assert tried.ended.tolist() == [False, False, True, False]
    assert (tried.begun.tolist(), tried.finished.tolist()) == ([0, 0, 4, 0], [0, 0, 3, 0])
    assert tried.returns.tolist() == [0, 0, 6, 0]
    life.enter(2)
    assert life.visit(2, 3, 12) == [[0]] * 3 + [[2]] * 6 + [[3]] * 3
    tried = life.state.rest[EXPLORER].tried
    assert (tried.ended.tolist(), int(tried.previous)) == ([True, False, True, False], 0)
    assert (tried.begun.tolist(), tried.finished.tolist()) == ([1, 0, 3, 0], [1, 0, 2, 0])
    assert tried.returns.tolist() == [1, 0, 4, 0]


def test_several_envs_share_what_they_tried() -> None:
    """Three envs start at once: both old policies, then the first again; afterwards all take the better one."""
    life = world(3, task_heads(), old_policy_exploration())
    life.visit(0, 2, 1)
    life.enter(1)
    life.visit(1, 0, 1)
    life.enter(2)
    assert life.visit(2, 3, 10) == [[0, 2, 0]] * 3 + [[2, 2, 2]] * 6 + [[3, 3, 3]]
    tried = life.state.rest[EXPLORER].tried
    assert (tried.finished.tolist(), tried.returns.tolist()) == ([2, 0, 4, 0], [2, 0, 8, 0])


@pytest.mark.parametrize(
    ("how", "allowed"), [("previous", {0}), ("uniform", {0, 2}), ("uniform_or_current", {0, 2, 3})]
)
def test_the_other_rules(how: Any, allowed: set[int]) -> None:
    """In six envs, whose policy stays through an episode; no action is random."""
    life = world(6, task_heads(), old_policy_exploration(how=how))
    life.visit(0, 2, 1)
    life.enter(1)
    life.visit(1, 0, 1)
    life.enter(2)
    found = np.array(life.visit(2, 3, RANDOM + 1))
    episodes = found[:RANDOM].reshape(3, 3, 6)
    assert (episodes == episodes[:, :1]).all()
    assert set(episodes.flat) == allowed
    assert (found[RANDOM] == 3).all()


def test_a_recurring_task_explores_with_its_own_policy_too() -> None:
    life = world(1, task_heads(), old_policy_exploration())
    for number, task in enumerate((2, 3)):
        life.visit(number, task, 1)
        life.enter(number + 1)
    assert life.visit(2, 2, 6) == [[2]] * 3 + [[3]] * 3


def test_after_a_reset_of_the_whole_agent_actions_are_random() -> None:
    life = world(1, task_heads(), old_policy_exploration(), INTERVENTIONS["reset"]())
    life.visit(0, 2, 1)
    life.enter(1)
    life.state = telling(life.state)
    assert life.visit(1, 0, RANDOM + 1) == [[RANDOMLY]] * RANDOM + [[0]]
    assert life.state.rest[EXPLORER].tried.ended.tolist() == [False] * 4


def test_with_the_task_as_an_input_the_actor_sees_the_old_task() -> None:
    made = made_of(1, task_input(), old_policy_exploration(how="previous"))
    state = made.init(KEY, None)
    tried = state.rest[EXPLORER].tried._replace(ended=jnp.array([True, False, False, False]))
    explorer = state.rest[EXPLORER]._replace(tried=tried, acting=jnp.zeros(1, jnp.int32))
    state = state._replace(rest={**state.rest, EXPLORER: explorer})
    own, old = (appended(jnp.ones((1, 2)), jnp.int32(task), TASKS) for task in (1, 0))
    early, late = (Clock(*(jnp.int32(each) for each in (50, 50, 1, step))) for step in (0, RANDOM))
    np.testing.assert_array_equal(made.act(KEY, state, own, early), made.act(KEY, state, old, late))
    assert not np.allclose(made.act(KEY, state, own, early), made.act(KEY, state, own, late))


@pytest.mark.parametrize(("kind", "one"), [(np.float32, 1), (np.uint8, 255)])
def test_the_task_of_an_observation_is_replaced_row_by_row(kind: Any, one: Any) -> None:
    pictures = jnp.asarray(np.random.default_rng(1).integers(0, 2, (3, 4, 5, 2)).astype(kind))
    given = appended(pictures, jnp.int32(1), 3)
    made = np.asarray(replaced(given, jnp.array([2, -1, 0]), 3))
    assert made.dtype == kind
    np.testing.assert_array_equal(made[..., :2], pictures)
    for row, task in enumerate((2, 1, 0)):
        np.testing.assert_array_equal(made[row, ..., 2:], np.broadcast_to(one * np.eye(3)[task], (4, 5, 3)))


# Contracts.

METHODS: tuple[Callable[[], Intervention], ...] = (task_heads, old_policy_exploration)


@pytest.mark.parametrize("name", ["sac", "td3"])
@pytest.mark.parametrize("real", [True, False])
def test_structure_is_kept_through_steps_and_a_switch(name: str, real: bool) -> None:
    """Traced only, with a memory of past visits beside it."""
    if name == "td3" and not real:
        pytest.skip("has no discrete actions")
    cloning = functools.partial(INTERVENTIONS["behavioural_cloning"], memory=8, batch=4)
    started = run(program(name, *METHODS, cloning, stream=source(name, real), random_steps=3))
    carry, (hyper, seeds, block) = started.carry_shape(), started.inputs[0]
    assert {EXPLORER, PAST} <= set(carry.agent.rest)
    shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    after, _ = jax.eval_shape(started.compiled.chunk, hyper, seeds, carry, started.clock())
    assert shapes(after) == shapes(carry)
    task = started.clock().visit
    switched = jax.eval_shape(started.compiled.switch, hyper, seeds, carry, started.clock(), task, block)
    assert shapes(switched) == shapes(carry)


def test_without_a_method_that_chooses_there_is_no_explorer() -> None:
    assert EXPLORER not in jax.eval_shape(lambda: made_of(1, task_heads()).init(KEY, None)).rest


def test_it_is_refused_where_it_cannot_act() -> None:
    def traced(*methods: Intervention, **changes: Any) -> None:
        made = made_of(1, *methods, **changes)
        jax.eval_shape(lambda: made.switch(KEY, made.init(KEY, None), Clock(*(jnp.int32(0) for _ in range(4)))))

    with pytest.raises(ValueError, match=r"^needs a policy that knows the task; add task_heads or task_input$"):
        traced(old_policy_exploration())
    with pytest.raises(ValueError, match=r"^needs a policy that knows the task"):  # critics do not act
        traced(restricted(task_heads(), ["critic"]), old_policy_exploration())
    traced(restricted(task_heads(), ["actor"]), old_policy_exploration())
    with pytest.raises(ValueError, match=r"^agent.random_steps: 0 is not allowed; .* must be at least 1$"):
        traced(task_heads(), old_policy_exploration(), random_steps=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sac", "td3"])
def test_until_the_first_switch_nothing_changes_and_then_the_data_do(name: str) -> None:
    """Two lanes; the second visit begins with steps of the first task's policy."""
    explores, heads = (
        list(run(program(name, *methods, seeds=(0, 1), random_steps=8), width=2).chunks())
        for methods in (METHODS, METHODS[:1])
    )
    for key, values in heads[0].metrics.items():
        np.testing.assert_allclose(explores[0].metrics[key], values, rtol=2e-3, atol=1e-5, err_msg=key)
    assert any(not np.allclose(explores[1].metrics[key], heads[1].metrics[key]) for key in ("loss", "reward"))
    assert (explores[1].diverged_at == -1).all()
