"""PPO against an independent reference: updates, the clip, acting, the rollout, and invalid pairs."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import clock_at, program, run, source
from chain import chain
from method_cases import APART
from ppo_reference import FIRST, Linear, Settings, log_softmax, normal_log_density, surrogate, value_error
from q_reference import Script, script
from rollout_cases import KEY, as_pairs, live, remember

from plasticity.agents import ppo
from plasticity.agents.clipping import policy_loss, ratio_metrics, value_loss
from plasticity.agents.distributions import categorical, gaussian
from plasticity.core.types import Agent, StreamSpec, Transition, VisitPlan
from plasticity.envs.control import pendulum
from plasticity.interventions import INTERVENTIONS, reset
from plasticity.interventions.base import Intervention, compose
from plasticity.monitors import MONITORS
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import adam, sgd
from plasticity.optim.schedules import linear

SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 4, ("a",), (VisitPlan(0, 30),), 2, True)
REAL = SPEC._replace(actions=2, discrete=False)
STEPS, LENGTH, EPOCHS, PARTS = 30, 10, 2, 2
UPDATES = EPOCHS * PARTS


def small(spec: StreamSpec = SPEC, *interventions: Intervention, **settings: Any) -> Agent:
    """Linear networks, gradient descent, 3 rollouts of 20 steps."""
    sizes = {"rollout_length": LENGTH, "epochs": EPOCHS, "minibatches": PARTS, "policy_gain": 1.0}
    network = functools.partial(mlp, widths=(), initialiser="orthogonal")
    optimizer = functools.partial(sgd, learning_rate=Settings().learning_rate)
    return ppo(spec, compose(*interventions), **({"network": network, "optimizer": optimizer} | sizes | settings))


def life(spec: StreamSpec = SPEC) -> Script:
    found = script()
    if spec.discrete:
        return found
    return found._replace(action=np.random.default_rng(1).normal(size=(STEPS, 2, 2)).astype(np.float32))


def pairs(spec: StreamSpec = SPEC) -> Transition:
    return as_pairs(life(spec))


def whole(spec: StreamSpec = SPEC, *interventions: Intervention, **settings: Any) -> Any:
    """The parameters of a fresh agent, and its state and metrics after the whole script."""
    agent = small(spec, *interventions, **settings)
    start = agent.init(KEY, None)
    return jax.device_get((start.learner.params, *jax.jit(lambda: live(agent, start, pairs(spec)))()[:2]))


CASES = {
    "discrete": (SPEC, Settings()),
    "real": (REAL, Settings(clip=0.2, value_clip=0.3, normalise="batch", learning_rate=0.02)),
    "plain": (SPEC, Settings(value_clip=0.1, normalise="none", trace=0.5, value_coefficient=1.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_three_rollouts_agree_with_an_independent_reference(case):
    spec, settings = CASES[case]
    names = ("discount", "clip", "value_clip", "value_coefficient", "entropy_coefficient")
    numbers = {name: getattr(settings, name) for name in names}
    start, state, metrics = whole(
        spec,
        remember(3 * UPDATES, 10),
        optimizer=functools.partial(sgd, learning_rate=settings.learning_rate),
        gae_lambda=settings.trace,
        normalise_advantages=settings.normalise,
        log_std=-0.3,
        **numbers,
    )
    reference, found = Linear(start, settings), life(spec)._asdict()
    expected: dict[str, list[float]] = {}
    for rollout in range(3):
        samples = reference.samples(found, LENGTH * rollout, LENGTH * (rollout + 1))
        assert 0 < (~samples["valid"]).sum() < 10
        made = []
        for batch in state.plugins[0][UPDATES * rollout : UPDATES * (rollout + 1)]:
            rows = np.argmax((samples["x"][None] == batch[:, None]).all(-1), 1)
            assert (samples["x"][rows] == batch).all()
            made.append(reference.update({name: values[rows] for name, values in samples.items()}))
        total = {name: sum(each[name] for each in made) for name in made[0]}
        total["excess_ratio"] = total["updates"] * total["ratio_above"] / total["ratio_below"]
        for name, value in total.items():
            expected.setdefault(name, []).append(value)
    learned = state.learner.params
    for part, name in (("policy", reference.policy), ("value", reference.value)):
        for leaf, values in name.items():
            np.testing.assert_allclose(learned[part]["output"][leaf], values, atol=2e-5)
    if reference.log_std is not None:
        np.testing.assert_allclose(learned["scale"]["log_std"], reference.log_std, atol=2e-5)
        assert (np.abs(reference.log_std + 0.3) > 1e-3).all()
    assert set(metrics) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(metrics[name][LENGTH - 1 :: LENGTH], values, rtol=1e-3, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(np.delete(metrics[name], [9, 19, 29]), 0.0)
    assert min(expected["clip_fraction"]) > 0  # the clip was met


def test_each_epoch_is_a_new_order_of_the_whole_rollout_and_updates_are_numbered():
    _, state, _ = whole(SPEC, remember(3 * UPDATES, 10))
    batches, observations = state.plugins[0], life().observation
    assert np.isfinite(batches).all()
    for epoch, shown in enumerate(batches.reshape(3 * EPOCHS, 20, 3)):
        rollout = observations[LENGTH * (epoch // EPOCHS) :][:LENGTH].reshape(20, 3)
        assert sorted(shown.tolist()) == sorted(rollout.tolist())
    assert (batches[0] != batches[2]).any()


@pytest.mark.parametrize("spec", [SPEC, REAL], ids=["discrete", "real"])
def test_pairs_that_join_two_episodes_never_enter(spec):
    """Their action, reward and discount may be anything, even an action whose density is 0."""
    joins, wanted = jnp.asarray(life().step_type[1:] == FIRST), pairs(spec)
    current = wanted.current._replace(
        reward=jnp.where(joins, 1e6, wanted.current.reward), discount=jnp.where(joins, 3.0, wanted.current.discount)
    )
    if spec.discrete:
        action = jnp.where(joins, 3 - wanted.action, wanted.action)
    else:
        action = jnp.where(joins[..., None], 1e30, wanted.action)
    agent = small(spec, normalise_advantages="batch", optimizer=functools.partial(sgd, learning_rate=0.02))
    lived = jax.jit(lambda wanted: live(agent, agent.init(KEY, None), wanted)[:2])
    (first, made), (second, other) = lived(wanted), lived(Transition(wanted.previous, action, current))
    assert int(joins.sum()) > 3
    chex.assert_tree_all_finite(first.learner)
    chex.assert_trees_all_equal(first.learner, second.learner)
    chex.assert_trees_all_equal(made, other)


def test_losses_row_by_row():
    rng = np.random.default_rng(3)
    ratio, advantage = rng.uniform(0.5, 1.6, 200), rng.normal(size=200)
    log_ratio, a = jnp.asarray(np.log(ratio)), jnp.asarray(advantage)
    loss, slope = surrogate(ratio, advantage, 0.2)
    np.testing.assert_allclose(policy_loss(log_ratio, a, 0.2), loss, rtol=1e-4, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(policy_loss(x, a, 0.2)))(log_ratio)
    np.testing.assert_allclose(gradient, slope * ratio, rtol=1e-4, atol=1e-6)
    value, old, target = rng.normal(size=(3, 200))
    for clip in (None, 0.5):
        loss, slope = value_error(value, old, target, clip)
        given = (jnp.asarray(old), jnp.asarray(target), clip)
        np.testing.assert_allclose(value_loss(jnp.asarray(value), *given), loss, rtol=1e-4, atol=1e-6)
        gradient = jax.grad(lambda x, given=given: jnp.sum(value_loss(x, *given)))(jnp.asarray(value))
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_ratios_by_hand():
    """Above 1.2: 2 and 1.5; below 0.8: 0.5 and 0.25; 1.1 is between them, and the last is not valid."""
    ratio = jnp.asarray([2.0, 1.5, 1.1, 0.5, 0.25, 7.0])
    valid = jnp.arange(6) < 5
    found = ratio_metrics(jnp.log(ratio), valid, 0.2)
    kl = np.mean([r - 1 - np.log(r) for r in (2.0, 1.5, 1.1, 0.5, 0.25)])
    expected = {"approx_kl": kl, "clip_fraction": 0.8, "ratio_above": 1.75, "ratio_below": 0.375}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)
    still = ratio_metrics(jnp.zeros(6), valid, 0.2)
    assert {name: float(value) for name, value in still.items()} == {
        "approx_kl": 0.0, "clip_fraction": 0.0, "ratio_above": 1.0, "ratio_below": 1.0
    }  # fmt: skip


def toy(y: tuple[float, float], steps: int = 1) -> tuple[float, float]:
    """Ratios in the states x = (1, 0) and y after gradient steps on x alone, of a linear softmax that starts at 0."""

    def log_ratio(weights: Any, state: Any) -> Any:
        return categorical((state @ weights)[None]).log_probability(jnp.zeros(1, jnp.int32)) - jnp.log(0.5)

    weights, x = jnp.zeros((2, 2)), jnp.asarray([1.0, 0.0])
    for _ in range(steps):
        weights -= 1.5 * jax.grad(lambda w: policy_loss(log_ratio(w, x), jnp.ones(1), 0.1)[0])(weights)
    one, other = (jnp.exp(log_ratio(weights, jnp.asarray(state)))[0] for state in (x, y))
    return float(one), float(other)


def test_the_clip_holds_no_state_that_shares_a_feature():
    """Moalla et al. 2024: one update takes the ratio beyond the clip, much further where the feature is larger."""
    for y, expected in (((3.0, 0.0), 1.98), ((-1.0, 0.0), 0.36), ((0.0, 1.0), 1.0)):
        assert toy(y) == pytest.approx((1.64, expected), abs=0.01)
    assert toy((3.0, 0.0), steps=2) == toy((3.0, 0.0))  # beyond the clip there is no gradient


def test_distributions():
    rng = np.random.default_rng(4)
    logits, mean, log_std = rng.normal(size=(5, 4)), rng.normal(size=(5, 3)), rng.normal(size=3)
    actions, points = rng.integers(0, 4, 5), rng.normal(size=(5, 3))
    chances, normal = categorical(jnp.asarray(logits)), gaussian(jnp.asarray(mean), jnp.asarray(log_std))
    log_p = log_softmax(logits)
    np.testing.assert_allclose(chances.log_probability(jnp.asarray(actions)), log_p[np.arange(5), actions], rtol=1e-5)
    np.testing.assert_allclose(chances.entropy, -(np.exp(log_p) * log_p).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(chances.mode, logits.argmax(-1))
    expected = normal_log_density(points, mean, np.exp(log_std))
    np.testing.assert_allclose(normal.log_probability(jnp.asarray(points)), expected, rtol=1e-5)
    np.testing.assert_allclose(normal.entropy, np.full(5, (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum()), rtol=1e-5)
    np.testing.assert_allclose(normal.mode, mean, rtol=1e-6)


def test_samples_have_these_distributions():
    n = 40_000
    log_p = jnp.log(jnp.asarray([0.5, 0.3, 0.2]))
    drawn = np.asarray(categorical(jnp.broadcast_to(log_p, (n, 3))).sample(KEY))
    assert drawn.dtype == np.int32
    np.testing.assert_allclose(np.bincount(drawn) / n, [0.5, 0.3, 0.2], atol=0.01)
    normal = gaussian(jnp.broadcast_to(jnp.asarray([1.0, -2.0]), (n, 2)), jnp.log(jnp.asarray([0.5, 2.0])))
    drawn = np.asarray(normal.sample(KEY))
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.04)
    np.testing.assert_allclose(drawn.std(0), [0.5, 2.0], rtol=0.02)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.02


@pytest.mark.slow
def test_acting_draws_and_playing_draws_or_takes_the_mode():
    n, spec = 20_000, SPEC._replace(envs=1)
    observation = jnp.ones((n, 3))
    for evaluate in ("sample", "mode"):
        agent = small(spec, evaluate=evaluate)
        state = agent.init(KEY, None)
        logits = Linear(state.learner.params, Settings()).outputs(np.ones(3))
        policy = np.exp(log_softmax(logits))
        assert policy.max() < 0.9
        shares = [np.bincount(agent.act(KEY, state, observation, clock_at(0)), minlength=4) / n]
        shares += [np.bincount(agent.play(KEY, state, observation, e), minlength=4) / n for e in (0.0, 0.4, 1.0)]
        np.testing.assert_allclose(shares[0], policy, atol=0.015)
        played = policy if evaluate == "sample" else np.eye(4)[logits.argmax()]
        for share, epsilon in zip(shares[1:], (0.0, 0.4, 1.0), strict=True):
            np.testing.assert_allclose(share, (1 - epsilon) * played + epsilon / 4, atol=0.015)


@pytest.mark.slow
def test_an_optimizer_that_is_reset_at_every_rollout():
    momentum = functools.partial(sgd, learning_rate=0.1, momentum=0.9, schedule=functools.partial(linear, duration=12))
    lasting, renewed = (small(optimizer=momentum, optimizer_reset=value) for value in (False, True))
    wanted = pairs()
    halves = [jax.tree.map(lambda x, s=s: x[s : s + LENGTH], wanted) for s in (0, LENGTH)]

    @jax.jit
    def lives() -> Any:
        first = live(lasting, lasting.init(KEY, None), halves[0])[0]
        blank = first._replace(learner=first.learner._replace(opt_state=lasting.init(KEY, None).learner.opt_state))
        by_hand, without = (live(lasting, state, halves[1], LENGTH)[0] for state in (blank, first))
        whole = live(renewed, renewed.init(KEY, None), jax.tree.map(lambda x: x[: 2 * LENGTH], wanted))[0]
        return by_hand.learner, without.learner, whole.learner

    by_hand, without, both = lives()
    chex.assert_trees_all_close(both, by_hand, rtol=1e-5, atol=1e-6)
    kernels = [x.params["policy"]["output"]["kernel"] for x in (both, without)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


@pytest.mark.slow
def test_a_target_divergence_ends_the_updates_of_a_rollout_after_an_epoch():
    """The policy moves within the first epoch, which is finished all the same."""
    for target, expected in ((1e-9, 5), (1e9, 10)):
        _, state, metrics = whole(SPEC, remember(30, 4), target_kl=target, minibatches=5)
        np.testing.assert_array_equal(metrics["updates"][LENGTH - 1 :: LENGTH], expected)
        made = np.isfinite(state.plugins[0]).all((1, 2)).reshape(3, 10)
        np.testing.assert_array_equal(made, np.broadcast_to(np.arange(10) < expected, (3, 10)))


@pytest.mark.parametrize("signs", [False, True])
def test_rewards_are_signs_then_clipped(signs):
    reward = life().reward[1 : LENGTH + 1]
    first = jax.tree.map(lambda x: x[:LENGTH], pairs())

    @jax.jit
    def kept(bound: Any) -> Any:
        agent = small(sign_rewards=signs, reward_clip=bound)
        return live(agent, agent.init(KEY, None), first)[0].rest["rollout"].reward

    for bound in (0.0, 0.5, 1.5):
        expected = np.sign(reward) if signs else reward
        expected = np.clip(expected, -bound, bound) if bound else expected
        np.testing.assert_allclose(kept(bound), expected, rtol=1e-6)


def test_the_rollout_holds_what_was_acted_upon():
    """The policy's outputs at each step, from ``act`` and from the rollout when it is full, are the same."""
    agent = small(REAL, normalise="running", scale_rewards=True, log_std=-30.0)  # it acts without noise
    wanted = jax.tree.map(lambda x: x[: LENGTH - 1], pairs(REAL))

    def watch(i: Any, state: Any, pair: Transition) -> Any:
        return agent.act(KEY, state, pair.previous.observation, clock_at(i))

    state, _, acted = live(agent, agent.init(KEY, None), wanted, watch=watch)
    seen = state.rest["rollout"].observation[: LENGTH - 1]
    means = Linear(state.learner.params, Settings()).outputs(np.asarray(seen))
    np.testing.assert_allclose(acted, means, atol=1e-5)
    assert np.abs(np.asarray(seen) - np.asarray(wanted.previous.observation)).max() > 0.1


@pytest.mark.parametrize("trunk", ["separate", "shared"])
def test_output_layers_begin_with_their_gains(trunk):
    network = functools.partial(mlp, widths=(16,), initialiser="orthogonal")
    params = small(trunk=trunk, network=network, policy_gain=0.01, value_gain=1.0).init(KEY, None).learner.params
    if trunk == "shared":
        assert set(params) == {"hidden_0", "policy_output", "value_output"}
        policy, value = params["policy_output"], params["value_output"]
    else:
        assert (params["policy"]["hidden_0"]["kernel"] != params["value"]["hidden_0"]["kernel"]).all()
        policy, value = params["policy"]["output"], params["value"]["output"]
    np.testing.assert_allclose(policy["kernel"].T @ policy["kernel"], 1e-4 * np.eye(4), atol=1e-8)
    np.testing.assert_allclose(value["kernel"].T @ value["kernel"], [[1.0]], rtol=1e-5)


@pytest.mark.slow
def test_a_shared_trunk_gives_each_loss_its_own_outputs():
    """Linear in the observation, shared or not: the same numbers under other names."""
    first = jax.tree.map(lambda x: x[:LENGTH], pairs())
    results = []
    for trunk in ("separate", "shared"):
        agent = small(trunk=trunk)
        state = agent.init(KEY, None)
        start = small().init(KEY, None).learner.params
        if trunk == "shared":
            start = {f"{name}_output": start[name]["output"] for name in ("policy", "value")}
        state = state._replace(learner=state.learner._replace(params=start))
        results.append(live(agent, state, first))
    (one, made, _), (other, others, _) = results
    for name in ("policy", "value"):
        chex.assert_trees_all_close(
            one.learner.params[name]["output"], other.learner.params[f"{name}_output"], rtol=1e-4, atol=1e-5
        )
    chex.assert_trees_all_close(made, others, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_an_episode_cut_off_may_count_as_ended():
    wanted = pairs()
    ended = wanted.current._replace(discount=jnp.where(wanted.current.step_type == 2, 0.0, wanted.current.discount))
    agents = small(), small(truncation="terminal")
    lived = [
        live(agent, agent.init(KEY, None), given)[0].learner
        for agent, given in ((agents[0], wanted._replace(current=ended)), (agents[1], wanted), (agents[0], wanted))
    ]
    chex.assert_trees_all_equal(lived[0], lived[1])
    assert np.abs(lived[1].params["value"]["output"]["kernel"] - lived[2].params["value"]["output"]["kernel"]).max() > 0


def test_what_monitors_see():
    """The loss with one-step advantages, by hand."""
    agent, found = small(discount=0.8, entropy_coefficient=0.1), life()
    state = agent.init(KEY, None)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs())
    reference = Linear(state.learner.params, Settings())
    before, after = reference.values(found.observation[:-1]), reference.values(found.observation[1:])
    error = found.reward[1:] + 0.8 * found.discount[1:] * after - before
    log_p = log_softmax(reference.outputs(found.observation[:-1]))
    taken = np.take_along_axis(log_p, found.action[..., None], -1)[..., 0]
    rows = 0.25 * error**2 - error * taken + 0.1 * (np.exp(log_p) * log_p).sum(-1)
    loss = agent.probe(state, batch, clock_at(0)).loss(state.learner.params)
    np.testing.assert_allclose(loss, rows[found.step_type[1:] != FIRST].mean(), rtol=1e-5)


def swing(*methods: Any, trunk: str = "separate", seeds: tuple[int, ...] = (0,)) -> Any:
    """Two visits of ten steps to a pendulum, whose action is a real number."""
    stream = pendulum(change="action", episode_steps=7, tasks=2, steps_per_task=10, envs=2)
    return program("ppo", *methods, stream=stream, seeds=seeds, trunk=trunk)


METHODS = [INTERVENTIONS[name] for name in sorted(set(INTERVENTIONS) - set(APART))]


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["separate", "shared"])
def test_every_method_keeps_the_structure_with_real_valued_actions(trunk):
    """Traced only. The standard deviations belong to no layer; every method must handle that."""
    started = run(swing(*METHODS, trunk=trunk))
    carry, (hyper, seeds, block) = started.carry_shape(), started.inputs[0]
    assert carry.recent.action.shape[-1] == 1
    after, _ = jax.eval_shape(started.compiled.chunk, hyper, seeds, carry, started.clock())
    chex.assert_trees_all_equal_shapes_and_dtypes(after, carry)
    task = started.clock().visit
    switched = jax.eval_shape(started.compiled.switch, hyper, seeds, carry, started.clock(), task, block)
    chex.assert_trees_all_equal_shapes_and_dtypes(switched, carry)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["separate", "shared"])
def test_every_method_runs_with_real_valued_actions(trunk):
    started = run(swing(*METHODS, trunk=trunk, seeds=(0, 1)))
    first, last = list(started.chunks())
    assert np.isfinite(first.metrics["loss"]).all()
    assert np.isfinite(last.metrics["loss"]).all()
    assert (last.diverged_at == -1).all()
    for carry in started.carries:
        assert (carry.agent.learner.params["scale"]["log_std"] != 0).all()


def swinging() -> tuple[Any, Any]:
    """A probe of a fresh agent on the script's observations, and its parameters."""
    built = swing().build({})
    state = built.init(KEY, None)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs(REAL))
    return built.probe(state, batch._replace(action=batch.action[:, :1]), clock_at(0)), state.learner.params


@pytest.mark.parametrize("name", sorted(set(MONITORS) - {"policy_change"}))  # of discrete actions
def test_every_monitor_looks_at_real_valued_actions(name):
    """Traced only."""

    def measured() -> Any:
        probe, params = swinging()
        monitor = MONITORS[name]()
        return monitor.measure(KEY, monitor.init(params), probe)

    assert all(value.shape == () for value in jax.eval_shape(measured)[1].values())


def test_distance_and_gradient_count_the_deviations():
    @jax.jit
    def measured() -> Any:
        probe, params = swinging()
        moved = {**params, "scale": {"log_std": params["scale"]["log_std"] + 3.0}}
        probe = probe._replace(learner=probe.learner._replace(params=moved))
        monitor = MONITORS["distance_from_initialisation"]()
        return monitor.measure(KEY, monitor.init(params), probe)[1], jax.grad(probe.loss)(params)

    distance, gradient = measured()
    np.testing.assert_allclose(distance["distance_from_initialisation"], 3.0, rtol=1e-5)
    assert (gradient["scale"]["log_std"] != 0).all()


@pytest.mark.slow
def test_only_a_whole_reset_renews_the_deviations():
    for settings, renewed in (({}, True), ({"modules": "last"}, False)):
        agent = small(REAL, reset(**settings), log_std=-0.3)
        state, *_ = live(agent, agent.init(KEY, None), pairs(REAL))
        after = agent.switch(jax.random.key(9), state, clock_at(STEPS, visit=1))
        assert ((after.learner.params["scale"]["log_std"] == jnp.float32(-0.3)).all()) == renewed
        assert (
            after.learner.params["policy"]["output"]["kernel"] != state.learner.params["policy"]["output"]["kernel"]
        ).all()
        assert bool((after.rest["rollout"].observation == 0).all()) == renewed


REFUSED = [
    ({"actions": "continuous"}, r"agent\.actions: continuous is not allowed; the stream's actions are discrete"),
    ({"rollout_length": 7}, r"agent\.rollout_length: 7 is not allowed; must divide the 30 steps"),
    ({"minibatches": 3}, r"agent\.minibatches: 3 is not allowed; must divide the 20 steps of a rollout"),
    ({"trunk": "joint"}, r'agent\.trunk: "joint" is not allowed; must be one of separate, shared'),
    ({"normalise_advantages": "all"}, r'agent\.normalise_advantages: "all" is not allowed; must be one of minibatch'),
    ({"evaluate": "best"}, r'agent\.evaluate: "best" is not allowed; must be one of sample, mode'),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_supervised_stream_is_refused(name):
    with pytest.raises(ValueError, match=r"agent\.kind: ppo is not allowed"):
        small(source(name).spec, rollout_length=1)


@pytest.mark.slow
def test_it_solves_the_chain():
    """The best return is 1, that of random actions about 0.65."""
    learning = {"rollout_length": 16, "minibatches": 2, "discount": 0.8, "entropy_coefficient": 0.0}
    network, rule = functools.partial(mlp, widths=(32,)), functools.partial(adam, learning_rate=0.01)
    stream = chain(1, 320, 4)
    arm = program("ppo", stream=stream, seeds=(0, 1, 2), chunk=32, network=network, optimizer=rule, **learning)
    returns = np.stack([chunk.metrics["episodic_return"] for chunk in run(arm, width=3).chunks()])
    assert returns[0].mean() < 0.85
    assert (returns[-1] > 0.97).all()
