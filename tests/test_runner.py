"""The training loop: compilations, independence of lanes, divergence, switches, episode statistics."""

import agent_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from plasticity.core.lane_axis import enter
from plasticity.core.types import VisitPlan
from plasticity.engine.lanes import lane_keys, place
from plasticity.engine.packing import unpack
from plasticity.engine.program import Block
from plasticity.engine.runner import Run, chunk_steps
from plasticity.envs.control import cartpole
from plasticity.runs import launch


def run_of(width: int | None = None, devices: int = 1, arm: int = 0, **changes) -> Run:
    if devices > len(launch.devices()):
        pytest.skip(f"needs {devices} devices")
    job = launch.plan(tiny.experiment(**changes)).jobs[arm]
    return Run(job.program, place(len(job.program.seeds), devices=devices, width=width), launch.devices())


def history(run: Run) -> dict[str, np.ndarray]:
    """Metrics [chunks, lanes] over the whole stream."""
    chunks = list(run.chunks())
    names = set().union(*(chunk.metrics for chunk in chunks))
    lanes = len(run.program.seeds)
    nothing = np.full(lanes, np.nan)
    return {name: np.stack([chunk.metrics.get(name, nothing) for chunk in chunks]) for name in sorted(names)}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray], **tolerance: float) -> None:
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return history(run_of(width=1))


def test_the_training_step_is_compiled_once_for_the_whole_stream(whole):
    run = run_of(width=1)
    compiled = []
    with jax.log_compiles(False):
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, *rest, **info: compiled.append(name) if "backend_compile" in name else None
        )
        chunks = run.chunks()
        next(chunks)
        started = len(compiled)
        for _ in range(3):  # up to the end of the first visit
            next(chunks)
        first_switch = len(compiled)
        list(chunks)
    assert run.compiled.traces == {"begin": 1, "chunk": 1, "measure(0,)": 1, "switch": 1}
    assert started > 0
    assert first_switch - started <= 1  # the monitors, at step 10
    del whole


def test_a_lane_alone_equals_the_lane_among_others_bit_for_bit(whole):
    alone = history(run_of(width=1, seeds=[1]))
    assert_same(alone, {name: values[:, 1:2] for name, values in whole.items()})


def test_a_lane_of_a_wide_vmap_is_exact_at_the_same_width_and_close_at_another(whole):
    wide = history(run_of(width=2))
    assert_same(history(run_of(width=2, seeds=[2])), {name: values[:, 2:] for name, values in wide.items()})
    early = {name: values[:4] for name, values in whole.items() if name != "reward"}
    assert_same({name: wide[name][:4] for name in early}, early, rtol=1e-4, atol=1e-5)


def test_two_devices_compute_what_one_does(whole):
    assert_same(history(run_of(width=1, devices=2)), whole)


def test_an_episode_of_more_rewards_than_a_float_counts():
    """Rewards of 1 behind a return of 2^24, and a chunk of more steps than one plain sum takes."""
    planned = agent_cases.program("dqn", stream=cartpole(tasks=1, steps_per_task=3000, envs=1), chunk=3000)
    run = agent_cases.run(planned)
    run.begin()
    start = run.carries[0]
    run.carries = [start._replace(episode_return=start.episode_return._replace(value=jnp.full((1, 1), 2.0**24)))]
    carry, packed = run.compiled.chunk(*run.inputs[0][:2], run.carries[0], run.clock())
    found = {name: float(x[0]) for name, x in unpack(jax.device_get(packed)).items()}
    # All steps but those that open an episode are rewarded; the last episode is not over.
    rewards = found["reward"] * 3000
    under_way = float(carry.episode_return.value[0, 0])
    total = found["episodic_return"] * found["episodes"]
    assert found["episodes"] > 20
    assert abs(total - (2**24 + rewards - under_way)) <= 4  # within float32 precision; the first episode alone has more


def test_seeds_differ(whole):
    for name in ("loss", "weight_norm", "reward"):
        assert len(np.unique(whole[name][-1])) > 1 or name == "reward"
    run = run_of(width=1)
    run.begin()
    kernels = [carry.agent.learner.params["hidden_0"]["kernel"][0] for carry in run.carries]
    inputs = [carry.timestep.observation.input[0] for carry in run.carries]
    for values in (kernels, inputs):
        assert not np.allclose(values[0], values[1])
        assert not np.allclose(values[1], values[2])


def test_arms_see_the_same_stream_and_start_from_the_same_parameters():
    arms = {"baseline": {}, "fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}
    runs = [run_of(width=1, arm=arm, arms=arms) for arm in (0, 1)]
    for run in runs:
        run.begin()
    for a, b in zip(jax.tree.leaves(runs[0].carries[0]), jax.tree.leaves(runs[1].carries[0]), strict=False):
        if a.shape == b.shape:
            np.testing.assert_array_equal(a, b)
    first_visit = [history(run_of(width=1, arm=arm, arms=arms)) for arm in (0, 1)]
    for name, values in first_visit[0].items():
        np.testing.assert_array_equal(values[:4], first_visit[1][name][:4])  # until the first switch
    assert not np.array_equal(first_visit[0]["loss"][4:], first_visit[1]["loss"][4:])


def test_the_fresh_control_starts_every_visit_as_a_fresh_agent():
    arms = {"fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}
    run = run_of(width=1, arms=arms, seeds=1)
    chunks = run.chunks()
    for _ in range(4):
        next(chunks)
    assert int(optimizer_count(run)) == 20
    next(chunks)
    assert int(optimizer_count(run)) == 5


def optimizer_count(run: Run):
    return next(leaf for leaf in jax.tree.leaves(run.carries[0].agent.learner.opt_state) if leaf.ndim == 1)[0]


def test_a_diverging_lane_is_frozen_and_the_others_go_on_untouched(whole):
    sweep = {"agent.optimizer.learning_rate": [0.01, 1e30]}
    agent = {"kind": "classifier", "network": {"kind": "mlp", "widths": [8]}, "optimizer": "adam"}
    run = run_of(width=1, sweep=sweep, agent=agent)
    seen = history(run)
    assert_same({name: values[:, :3] for name, values in seen.items()}, whole)
    assert all(int(carry.diverged_at[0]) == -1 for carry in run.carries[:3])
    for carry in run.carries[3:]:
        assert 1 <= int(carry.diverged_at[0]) <= 5
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(carry.agent.learner))
    assert np.isnan(seen["loss"][:, 3:]).all()
    assert (seen["update"][:, 3:] == 0).all()


def test_books(whole):
    assert whole["update"][:, 0].tolist() == list(range(5, 65, 5))
    assert np.isnan(whole["episodic_return"]).all()
    assert ((whole["reward"] >= 0) & (whole["reward"] <= 1)).all()
    measured = ~np.isnan(whole["weight_norm"][:, 0])
    assert measured.tolist() == [False, True] * 6


def test_mean_reward_and_loss_are_those_of_a_plain_loop():
    """One lane, one chunk, against a loop over the agent's and the stream's own functions, one step at a time."""
    run = run_of(width=1, seeds=[4])
    chunk = next(run.chunks())
    job = launch.plan(tiny.experiment(seeds=[4])).jobs[0]
    other = Run(job.program, place(1, devices=1, width=1), launch.devices())
    other.begin()
    carry, rewards, losses = other.carries[0], [], []
    lane = Block(other.program, other.compiled.stream, 1, other.compiled.eval_stream)
    hyper = {path: jnp.asarray(values[0]) for path, values in other.program.hyper.items()}
    keys = lane_keys(jnp.int32(4))
    carry = enter(carry._replace(stream=()), 1)._replace(stream=carry.stream)
    for i in range(5):
        now = other.clock()._replace(step=jnp.int32(i), update=jnp.int32(i), step_in_visit=jnp.int32(i))
        carry, made = lane.step(hyper, keys, carry, now)
        rewards.append(float(made["reward"]))
        losses.append(float(made["loss"]))
    np.testing.assert_allclose(chunk.metrics["reward"][0], np.mean(rewards), rtol=1e-5)
    np.testing.assert_allclose(chunk.metrics["loss"][0], np.mean(losses), rtol=1e-5)


def test_chunk_steps():
    visits = [VisitPlan(0, 500), VisitPlan(1, 1000)]
    assert chunk_steps(visits, {}) == 50
    assert chunk_steps(visits, {"monitor_every": [125]}) == 25
    assert chunk_steps(visits, {"monitor_every": [500]}, 100) == 100
    assert chunk_steps([VisitPlan(0, 7)], {}) == 7
    with pytest.raises(ValueError, match="record_every: 300 is not allowed; must divide the 500 steps of a visit"):
        chunk_steps(visits, {}, 300)
    with pytest.raises(ValueError, match="monitor_every"):
        chunk_steps(visits, {"monitor_every": [120]}, 50)
