"""Interventions and monitors on parts of the agents that join networks, from the config to the parameters."""

from typing import Any

import chex
import jax
import numpy as np
import pytest
from agent_cases import program, run
from method_cases import CASES, REFUSED

from plasticity.config.experiments import read_experiment
from plasticity.core.errors import UserError
from plasticity.interventions.base import Intervention
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.feature_penalties import c_chain
from plasticity.interventions.penalties import l2
from plasticity.interventions.restriction import restricted
from plasticity.runs import launch

ACTORS = {"sac": "actor", "td3": "actor", "ppo": "policy", "stream_ac": "policy", "qrc": "value"}
OTHERS = {"sac": "critic", "td3": "critic", "ppo": "value", "stream_ac": "value", "qrc": "correction"}
# These belong to no part.
WHOLE = (
    *("at_switch-replay", "at_switch-schedule", "at_switch-normaliser"),
    *("reset_and_distill", "altnet", "old_policy_exploration"),
)
SOON = {("sac", "l2"), ("sac", "trac"), ("ppo", "soft_reset"), ("ppo", "layer_norm"), ("stream_ac", "weight_decay")}
PAIRS = [
    pytest.param(agent, case, marks=[] if (agent, case) in SOON else pytest.mark.slow)
    for agent in ACTORS
    for case in CASES
    if case not in WHOLE and agent not in REFUSED.get(case, ()) and agent not in REFUSED.get(case.partition("-")[0], ())
]


def on(agent: str, case: str, part: str) -> Intervention:
    changes: dict[str, Any] = {"rest": "none"} if case == "reset" else {}
    return restricted(CASES[case](**changes), [part])


@pytest.mark.parametrize(("agent", "case"), PAIRS)
def test_structure_is_kept_through_steps_and_a_switch(agent: str, case: str) -> None:
    for part in (ACTORS[agent], OTHERS[agent]):
        started = run(program(agent, lambda part=part: on(agent, case, part)))
        carry, (hyper, seeds, block) = started.carry_shape(), started.inputs[0]
        after, _ = jax.eval_shape(started.compiled.chunk, hyper, seeds, carry, started.clock())
        chex.assert_trees_all_equal_shapes_and_dtypes(after, carry)
        task = started.clock().visit
        switched = jax.eval_shape(started.compiled.switch, hyper, seeds, carry, started.clock(), task, block)
        chex.assert_trees_all_equal_shapes_and_dtypes(switched, carry)


def after_one_chunk(agent: str, steps: int, *methods: Intervention) -> Any:
    started = run(program(agent, *((lambda each=each: each) for each in methods), chunk=steps, seeds=(0, 1)), width=2)
    next(iter(started.chunks()))
    return jax.device_get(started.carries[0].agent.learner)


@pytest.mark.parametrize(
    ("agent", "steps", "method"),
    [
        ("ppo", 2, weight_decay(rate=0.1)),  # one rollout
        ("ppo", 2, l2(strength=1.0)),
        pytest.param("sac", 10, weight_decay(rate=0.1), marks=pytest.mark.slow),
    ],
)
def test_other_parts_learn_as_without_the_method(agent: str, steps: int, method: Intervention) -> None:
    """Two lanes in a vmap: the last part of the update sees the same losses as long as it does not act on them."""
    part, other = OTHERS[agent], ACTORS[agent]
    plain = after_one_chunk(agent, steps)
    changed = after_one_chunk(agent, steps, restricted(method, [part]))
    mine = [name for name in plain.params if name.startswith(part)]
    assert mine
    for name in mine:
        assert not np.allclose(changed.params[name]["output"]["kernel"], plain.params[name]["output"]["kernel"])
    if agent == "ppo":  # an actor-critic from replay reads the critics' values at once
        for a, b in zip(*(jax.tree.leaves(each.params[other]) for each in (changed, plain)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_churn_of_the_policy_alone() -> None:
    """Four updates, the last two with a share: two lanes in a vmap. The value network learns as without it."""
    method = c_chain(distance="divergence", strength=0.0, share=1.0, warmup=2)
    plain, changed = after_one_chunk("ppo", 2), after_one_chunk("ppo", 2, restricted(method, ["policy"]))
    chex.assert_trees_all_close(changed.params["value"], plain.params["value"], rtol=1e-4, atol=1e-6)
    first, second = (each.params["policy"]["output"]["kernel"] for each in (plain, changed))
    assert not np.allclose(first, second, rtol=1e-5)


PPO = {"kind": "ppo", "network": {"kind": "mlp", "widths": [8]}, "rollout_length": 16, "minibatches": 1, "epochs": 1}
SAC = {
    "kind": "sac",
    "network": {"kind": "mlp", "widths": [8]},
    "critic_network": {"kind": "mlp", "widths": [8]},
    "batch_size": 8,
    "replay": {"capacity": 64, "minimum": 8},
    "random_steps": 4,
}
DQN = {
    "kind": "dqn",
    "network": {"kind": "mlp", "widths": [8]},
    "batch_size": 8,
    "replay": {"capacity": 64, "minimum": 8},
}


def planned(agent: Any, interventions: Any = (), monitors: Any = (), stream: str = "pendulum", **changes: Any) -> Any:
    raw = {
        "name": "tiny",
        "stream": {"kind": stream, "change": "none", "tasks": 2, "steps_per_task": 512, "envs": 4},
        "agent": agent,
        "interventions": list(interventions),
        "monitors": list(monitors),
        "monitor_every": 512,
        "task_aware": True,
        "seeds": 1,
        **changes,
    }
    return launch.plan(read_experiment(raw, launch.registry()))


def test_a_config_with_methods_and_monitors_on_parts() -> None:
    methods = [{"kind": "layer_norm", "modules": ["critic"]}, {"kind": "rms_norm", "modules": ["actor"]}]
    monitors = ["weight_norm", *({"kind": "weight_norm", "modules": [part]} for part in ("actor", "critic_2"))]
    plan = planned(SAC, [*methods, {"kind": "l2", "modules": ["actor", "critic_1"]}], monitors)
    assert {"weight_norm", "actor_weight_norm", "critic_2_weight_norm"} <= plan.jobs[0].measured
    assert plan.describe()["ranges"]["actor_weight_norm"] == [0.0, None]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["policy", "value"])
def test_methods_and_monitors_on_one_of_two_networks_with_memory(part: str) -> None:
    """Batches are sequences with the carries of both networks."""
    agent = PPO | {"network": {"kind": "gru", "units": 6, "torso": {"kind": "mlp", "widths": [8]}}}
    methods = ["redo", "c_chain", "infer", "hare_tortoise", "continual_backprop", "pfo", "soft_reset", "trac"]
    monitors = ["effective_rank", "plasticity_probe", "churn", "ntk", "second_moment", "hessian_trace"]
    plan = planned(
        agent,
        [{"kind": kind, "modules": [part]} for kind in [*methods, "reset", "optimizer_reset"]],
        [{"kind": kind, "modules": [part]} for kind in monitors],
    )
    assert {f"{part}_{kind}" for kind in monitors} <= plan.jobs[0].measured


def test_the_modules_of_a_member_are_dumped_and_read_again() -> None:
    experiment = planned(SAC, [{"kind": "l2", "modules": ["actor"]}]).experiment
    resolved = experiment.resolve()
    assert resolved["interventions"][0]["modules"] == ["actor"]
    assert read_experiment(resolved, launch.registry()).interventions == experiment.interventions


def test_modules_can_be_swept() -> None:
    sweep = {"interventions.l2.modules": [["actor"], ["critic"]]}
    plan = planned(SAC, [{"kind": "l2", "modules": ["actor"]}], sweep=sweep)
    assert [len(job.program.seeds) for job in plan.jobs] == [1, 1]


@pytest.mark.parametrize(
    ("agent", "method", "words"),
    [
        (
            SAC,
            {"kind": "l2", "modules": ["actr"]},
            '"actr" is not allowed; must be a list of: actor, critic_1, critic_2',
        ),
        (SAC, {"kind": "l2", "modules": ["critics"]}, "did you mean `critic`?"),
        (SAC, {"kind": "reset", "modules": ["criti"]}, "did you mean `critic_1`?"),
        (PPO, {"kind": "l2", "modules": ["actor"]}, "must be a list of: policy, value, scale"),
        (PPO | {"trunk": "shared"}, {"kind": "l2", "modules": ["policy"]}, "this agent's network has no parts"),
        (SAC, {"kind": "l2", "modules": []}, "interventions[0].modules: [] is not allowed"),
        (SAC, {"kind": "l2", "module": ["actor"]}, "unknown key; allowed: modules; did you mean `modules`?"),
        (SAC, {"kind": "at_switch", "modules": ["actor"], "replay": "clear"}, "which belongs to the whole agent"),
        (SAC, {"kind": "l2", "modules": ["temperature"]}, "which: kernels selects nothing"),
    ],
)
def test_what_is_refused_before_anything_is_compiled(agent: Any, method: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(agent, [method])
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["ewc", "mas", "behavioural_cloning", "packnet"])
def test_a_temperature_says_nothing(kind: str) -> None:
    with pytest.raises(UserError, match=r"these say nothing about an observation|no weights that tasks share"):
        planned(SAC, [{"kind": kind, "modules": ["temperature"]}], task_aware=True)


def test_an_agent_without_parts() -> None:
    for family, kind in (("interventions", "l2"), ("monitors", "srank")):
        members = {family: [{"kind": kind, "modules": ["actor"]}]}
        with pytest.raises(UserError, match=r'modules: \["actor"\] is not allowed; this agent\'s network has no parts'):
            planned(DQN, stream="cartpole", **members)


def test_a_normalisation_that_is_there_already_is_refused() -> None:
    agent = SAC | {"network": {"kind": "mlp", "widths": [8], "normalisation": "layer"}}
    planned(agent, [{"kind": "layer_norm", "modules": ["critic"]}])
    with pytest.raises(UserError, match="layer_norm changes nothing"):
        planned(agent, [{"kind": "layer_norm", "modules": ["actor"]}])


def test_one_normalisation_for_a_part() -> None:
    two = [{"kind": "layer_norm", "modules": ["critic"]}, {"kind": "rms_norm", "modules": ["critic_1"]}]
    with pytest.raises(UserError, match="layer_norm and rms_norm both set the network's normalisation"):
        planned(SAC, two)


def test_a_monitor_of_a_part_twice_is_refused() -> None:
    with pytest.raises(UserError, match="given twice"):
        planned(SAC, monitors=[{"kind": "weight_norm", "modules": ["actor"]}] * 2)
