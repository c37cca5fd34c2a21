"""Which policy acts at each step of a visit: by hand on an agent that only says who acts, then in whole agents."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, program, run, source

from plasticity.agents.base import AgentCore
from plasticity.agents.explorers import EXPLORER, exploring
from plasticity.agents.past import PAST
from plasticity.config.experiments import read_experiment
from plasticity.core.errors import UserError
from plasticity.core.task_entries import appended, replaced, task_of
from plasticity.core.types import (
    FIRST,
    LAST,
    MID,
    Agent,
    AgentState,
    Clock,
    Learner,
    Network,
    StreamSpec,
    TimeStep,
    Transition,
    VisitPlan,
)
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention
from plasticity.interventions.exploration import old_policy_exploration
from plasticity.interventions.restriction import restricted
from plasticity.interventions.task import task_heads, task_input
from plasticity.runs import launch

KEY = jax.random.key(2)
TASKS, RANDOM = 4, 9  # random steps of each visit
REWARDS = np.array([0.5, 9.0, 1.0, 9.0], np.float32)  # of a step of each task's policy
RANDOMLY = -9
VISITS = tuple(VisitPlan(task, 12) for task in (2, 0, 3))


def spec_of(envs: int) -> StreamSpec:
    shape = jax.ShapeDtypeStruct((2 + TASKS,), jnp.float32)
    spec = StreamSpec(shape, 1, ("a", "b", "c", "d"), VISITS, envs, True, action_bounds=((-1.0,), (1.0,)))
    return spec._replace(discrete=False, task_entries=TASKS)


def clock_of(step: int, visit: int, since: int) -> Clock:
    return Clock(*(jnp.int32(each) for each in (step, step, visit, since)))


def telling(core: AgentCore) -> Agent:
    """The action is the task in which the agent acts, or ``RANDOMLY`` in its first steps."""

    def init(key: Any, timestep: Any) -> AgentState:
        del timestep
        learner = core.fresh(key, jnp.int32(0))
        return AgentState(learner._replace(rest={}), (), learner.rest)

    def act(key: Any, state: AgentState, observation: Any, clock: Clock) -> Any:
        del key
        return jnp.where(clock.step - state.rest["schedule"] < RANDOM, RANDOMLY, task_of(observation, TASKS))

    def learn(key: Any, state: AgentState, transition: Any, clock: Clock) -> Any:
        del key, transition, clock
        return state, {}

    def switch(key: Any, state: AgentState, clock: Clock) -> AgentState:
        context: Any = core.context(clock)
        plugins, learner = core.intervention.switch(key, (), state.learner._replace(rest=state.rest), context)
        return AgentState(learner._replace(rest={}), plugins, learner.rest)

    return Agent(init, act, learn, switch, probe=None, play=None)  # type: ignore[arg-type]


def fresh(key: Any, created: Any) -> Learner:
    del key
    return Learner((), (), (), {"schedule": created})


class World:
    """Episodes of two transitions, at the same time in all envs, and of the step that starts the next one."""

    def __init__(self, method: Intervention, envs: int = 1) -> None:
        network: Any = Network(lambda key: (), None, reads_task=True)  # type: ignore[arg-type]
        made = exploring(spec_of(envs), AgentCore(network, None, method, fresh), RANDOM, telling)  # type: ignore[arg-type]
        self.act, self.learn, self.switch = (jax.jit(each) for each in (made.act, made.learn, made.switch))
        self.state, self.envs, self.step = made.init(KEY, None), envs, 0  # type: ignore[arg-type]

    def shown(self, kind: int, reward: Any, task: int) -> TimeStep:
        seen = appended(jnp.zeros((self.envs, 2)), jnp.int32(task), TASKS)
        kinds, ones = jnp.full(self.envs, kind, jnp.int8), jnp.ones(self.envs)
        return TimeStep(kinds, jnp.asarray(reward, jnp.float32) * ones, ones, seen)

    def visit(self, number: int, task: int, steps: int) -> list[list[int]]:
        """Who acts at each step, in each env."""
        found, now = [], self.shown(FIRST, 0.0, task)
        for step in range(steps):
            clock, key = clock_of(self.step, number, step), jax.random.fold_in(KEY, self.step)
            who = self.act(key, self.state, now.observation, clock).tolist()
            kind = (MID, LAST, FIRST)[step % 3]
            reward = [0.0 if kind == FIRST or each < 0 else REWARDS[each] for each in who]
            after = self.shown(kind, reward, task)
            self.state, _ = self.learn(key, self.state, Transition(now, jnp.zeros(self.envs), after), clock)
            found.append(who)
            now, self.step = after, self.step + 1
        return found

    def enter(self, number: int) -> None:
        self.state = self.switch(jax.random.fold_in(KEY, self.step), self.state, clock_of(self.step, number, 0))

    @property
    def tried(self) -> dict[str, Any]:
        return {name: each.tolist() for name, each in self.state.rest[EXPLORER].tried._asdict().items()}


def test_the_best_policy_explores_after_each_was_tried() -> None:
    """Visits to tasks 2, 0 and 3: an episode of policy 0 returns 1, one of policy 2 returns 2."""
    life = World(old_policy_exploration())
    assert life.visit(0, 2, 11) == [[RANDOMLY]] * RANDOM + [[2]] * 2
    life.enter(1)
    assert life.visit(1, 0, 12) == [[2]] * RANDOM + [[0]] * 3
    counts = {"begun": [0, 0, 4, 0], "finished": [0, 0, 3, 0], "returns": [0, 0, 6, 0]}
    assert life.tried == {"ended": [False, False, True, False], "previous": 2, **counts}
    life.enter(2)
    assert life.visit(2, 3, 12) == [[0]] * 3 + [[2]] * 6 + [[3]] * 3
    counts = {"begun": [1, 0, 3, 0], "finished": [1, 0, 2, 0], "returns": [1, 0, 4, 0]}
    assert life.tried == {"ended": [True, False, True, False], "previous": 0, **counts}


def test_several_envs_share_what_they_tried() -> None:
    """Three envs start at once: both old policies, then the first again; afterwards all take the better one."""
    life = World(old_policy_exploration(), envs=3)
    for number, task in enumerate((2, 0)):
        life.visit(number, task, 1)
        life.enter(number + 1)
    assert life.visit(2, 3, 10) == [[0, 2, 0]] * 3 + [[2, 2, 2]] * 6 + [[3, 3, 3]]
    assert (life.tried["finished"], life.tried["returns"]) == ([2, 0, 7, 0], [2, 0, 14, 0])


def test_a_policy_stays_through_an_episode() -> None:
    """In six envs, whose policies are those of the tasks 0 and 2 and, for task 3, the current one; none is random."""
    life = World(old_policy_exploration(how="uniform_or_current"), envs=6)
    for number, task in enumerate((2, 0)):
        life.visit(number, task, 1)
        life.enter(number + 1)
    found = np.array(life.visit(2, 3, RANDOM + 1))
    episodes = found[:RANDOM].reshape(3, 3, 6)
    assert (episodes == episodes[:, :1]).all()
    assert set(episodes.flat) == {0, 2, 3}
    assert (found[RANDOM] == 3).all()


def test_a_recurring_task_explores_with_its_own_policy_too() -> None:
    life = World(old_policy_exploration())
    for number, task in enumerate((2, 3)):
        life.visit(number, task, 1)
        life.enter(number + 1)
    assert life.visit(2, 2, 6) == [[2]] * 3 + [[3]] * 3


def test_after_a_reset_of_the_whole_agent_actions_are_random() -> None:
    """The agent's age and what it knows of old policies begin anew."""
    renewing = Intervention(switch=lambda key, state, learner, context: (state, context.fresh(key)))
    life = World(renewing._replace(explore=old_policy_exploration().explore))
    life.visit(0, 2, 4)
    life.enter(1)
    assert life.visit(1, 0, RANDOM + 1) == [[RANDOMLY]] * RANDOM + [[0]]
    assert life.tried["ended"] == [False] * 4


@pytest.mark.parametrize(("kind", "one"), [(np.float32, 1), (np.uint8, 255)])
def test_the_task_of_an_observation_is_replaced_row_by_row(kind: Any, one: Any) -> None:
    pictures = jnp.asarray(np.random.default_rng(1).integers(0, 2, (3, 4, 5, 2)).astype(kind))
    given = appended(pictures, jnp.int32(1), 3)
    made = np.asarray(replaced(given, jnp.array([2, -1, 0]), 3))
    assert made.dtype == kind
    np.testing.assert_array_equal(made[..., :2], pictures)
    for row, task in enumerate((2, 1, 0)):
        np.testing.assert_array_equal(made[row, ..., 2:], np.broadcast_to(one * np.eye(3)[task], (4, 5, 3)))


# Whole agents.

METHODS: tuple[Callable[[], Intervention], ...] = (task_heads, old_policy_exploration)


def made_of(*methods: Intervention, name: str = "td3", **changes: Any) -> Agent:
    return agent(name, spec_of(1), *methods, **{"random_steps": RANDOM, **changes})


@pytest.mark.parametrize(("name", "method"), [("sac", task_heads), ("td3", task_input)])
def test_the_actor_acts_as_in_the_old_task(name: str, method: Callable[[], Intervention]) -> None:
    """With the same random numbers as the agent itself, when it is in that task and past its random steps."""
    made = made_of(method(), old_policy_exploration(), name=name)
    act, state = jax.jit(made.act), jax.jit(functools.partial(made.init, timestep=None))(KEY)  # type: ignore[arg-type]
    tried = state.rest[EXPLORER].tried._replace(ended=jnp.array([True, False, False, False]))
    explorer = state.rest[EXPLORER]._replace(tried=tried, acting=jnp.zeros(1, jnp.int32))
    state = state._replace(rest={**state.rest, EXPLORER: explorer, "schedule": jnp.int32(50)})
    own, old = (appended(jnp.ones((1, 2)), jnp.int32(task), TASKS) for task in (1, 0))
    early, late = clock_of(50, 1, 0), clock_of(50 + RANDOM, 1, RANDOM)
    np.testing.assert_array_equal(act(KEY, state, own, early), act(KEY, state, old, late))
    assert not np.allclose(act(KEY, state, own, early), act(KEY, state, own, late))


@pytest.mark.parametrize(("name", "real"), [("sac", True), ("sac", False), ("td3", True)])
def test_structure_is_kept_through_steps_and_a_switch(name: str, real: bool) -> None:
    """Traced only, with a memory of past visits beside it."""
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
    assert EXPLORER not in jax.eval_shape(lambda: made_of(task_heads()).init(KEY, None)).rest  # type: ignore[arg-type]


def test_it_is_refused_where_it_cannot_act() -> None:
    def traced(*methods: Intervention, **changes: Any) -> None:
        made = made_of(*methods, **changes)
        jax.eval_shape(lambda: made.switch(KEY, made.init(KEY, None), clock_of(0, 1, 0)))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"^needs a policy that knows the task; add task_heads or task_input"):
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


# Plans.

NETWORK = {"kind": "mlp", "widths": [4]}
REPLAY = {"capacity": 64, "minimum": 8}
SAC = {"kind": "sac", "network": NETWORK, "critic_network": NETWORK, "batch_size": 4, "replay": REPLAY}
DQN = {"kind": "dqn", "network": NETWORK, "batch_size": 4, "replay": REPLAY}
OLD = "old_policy_exploration"
REFUSED = [
    ({"task_aware": False}, rf"interventions.{OLD} must know the task; set `task_aware: true`"),
    (
        {"interventions": [OLD]},
        rf"interventions.{OLD}: needs a policy that knows the task; add task_heads or",
    ),
    (
        {"interventions": ["task_heads", {"kind": OLD, "modules": ["actor"]}]},
        rf"interventions.{OLD}: modules: .*actor.* is not allowed; which policy explores belongs to the whole agent",
    ),
    (
        {"agent": DQN, "stream": {"kind": "catch", "tasks": 2, "steps_per_task": 64}},
        r"not allowed with agent `dqn`: the agent does not explore with the policies of earlier tasks",
    ),
]


@pytest.mark.parametrize(("changes", "line"), REFUSED)
def test_a_plan_refuses_what_cannot_explore(changes: Any, line: str) -> None:
    raw = {
        "name": "old",
        "stream": {"kind": "pendulum", "tasks": 2, "steps_per_task": 512},
        "agent": SAC,
        "interventions": ["task_heads", OLD],
        "task_aware": True,
        "monitors": [],
        "seeds": 1,
    }
    with pytest.raises(UserError, match=line):
        launch.plan(read_experiment(raw | changes, launch.registry()))
