"""Self-normalized resets against a NumPy loop from the equations: ages, limits, counted silences, resets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import MLP, Run, make

from plasticity.core.types import Activation
from plasticity.interventions import self_normalized_resets
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(4)
FRESH = 7.0
UPDATES, ROWS, SIZES = 240, 3, {"hidden_0": 5, "hidden_1": 4}
ETA, PERIOD, LONGEST, INITIAL, EXPANSION = 0.15, 30, 12, 4, 1.6


def values_of(size: int, seed: int) -> np.ndarray:
    """Activations ``[updates, rows, units]``: units that fire always, often, seldom, and not at all after a while."""
    rng = np.random.default_rng(seed)
    chances = np.resize([1.0, 0.35, 0.12, 0.05, 0.5], size)
    values = np.where(rng.random((UPDATES, ROWS, size)) < chances, 1.0, rng.choice([0.0, -1.0], (UPDATES, ROWS, size)))
    values[UPDATES // 2 :, :, size - 1] = 0.0
    return values.astype(np.float32)


VALUES = {name: values_of(size, size) for name, size in SIZES.items()}


class Reference:
    """One unit, from the paper's words: its silences as a list."""

    def __init__(self) -> None:
        self.silent, self.limit = 0, INITIAL
        self.silences: list[int] = []

    def step(self, update: int, rows: np.ndarray) -> bool:
        """One update; whether the unit is reset."""
        if (rows > 0).any():
            self.end()
        else:
            self.silent += 1
        reset = self.silent >= self.limit
        if reset:
            self.end()
        if (update + 1) % PERIOD == 0:
            self.renew()
        return reset

    def end(self) -> None:
        if self.silent:
            self.silences.append(self.silent)
        self.silent = 0

    def renew(self) -> None:
        share = [sum(s <= q for s in self.silences) / max(len(self.silences), 1) for q in range(1, LONGEST + 1)]
        q = next((q for q, p in enumerate(share, 1) if p >= 1 - ETA), 1)
        self.limit = q if q < self.limit else min(int(EXPANSION * self.limit), LONGEST)
        self.silences = []


@pytest.fixture(scope="module")
def history() -> Any:
    """The states after each update, and parameters that were 1 before it, with fresh values of 7."""
    method = self_normalized_resets(eta=ETA, period=PERIOD, longest=LONGEST, initial=INITIAL, expansion=EXPANSION)
    loop = make(method, adam())
    shapes = jax.eval_shape(loop.init, KEY).learner
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes.params)
    slots = jax.tree.map(lambda x: jnp.full(x.shape, 2, x.dtype), shapes.opt_state)
    learner = shapes._replace(params=params, opt_state=slots, target=params)
    fresh = learner._replace(params=jax.tree.map(lambda x: jnp.full_like(x, FRESH), params))

    def body(state: Any, update: jax.Array) -> Any:
        activations = {name: Activation(jnp.zeros(()), jnp.asarray(x)[update]) for name, x in VALUES.items()}
        facts = loop.context(update)._replace(activations=activations, fresh=lambda key: fresh)
        state, after = method.step(KEY, state, learner, facts)
        return state, (state, after)

    start = method.init(KEY, params, loop.network)
    return jax.tree.map(np.asarray, jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(UPDATES))[1])(start))


def test_every_update_against_numpy(history: Any) -> None:
    states, learners = history
    resets = {}
    for name, size in SIZES.items():
        for unit in range(size):
            reference, firing = Reference(), states[name]
            for update in range(UPDATES):
                reset = reference.step(update, VALUES[name][update, :, unit])
                where = f"{name} {unit} {update}"
                assert firing.silent[update, unit] == reference.silent, where
                assert firing.limit[update, unit] == reference.limit, where
                counts = [reference.silences.count(q) for q in range(1, LONGEST + 1)]
                np.testing.assert_array_equal(firing.counts[update, unit], counts, err_msg=where)
                assert (learners.params[name]["bias"][update, unit] == FRESH) == reset, where
                resets[name, unit] = resets.get((name, unit), 0) + reset
    assert resets["hidden_0", 0] == 0  # fires in every batch
    assert all(resets[name, size - 1] > 3 for name, size in SIZES.items())  # dead from the middle on
    limits = np.concatenate([states[name].limit.ravel() for name in SIZES])
    assert {1, LONGEST} <= set(limits.tolist())
    assert len(set(limits.tolist())) > 4


def test_a_reset_writes_both_sides_and_their_slots_and_nothing_else(history: Any) -> None:
    _, learners = history
    born = learners.params["hidden_0"]["bias"] == FRESH
    update = next(
        i for i in range(UPDATES) if born[i].sum() == 1 and not (learners.params["hidden_1"]["bias"][i] > 1).any()
    )
    now = jax.tree.map(lambda x: x[update], learners)
    column, stays = np.where(born[update], FRESH, 1.0), np.where(born[update], 0.0, 1.0)
    np.testing.assert_array_equal(now.params["hidden_0"]["kernel"], np.tile(column, (3, 1)))
    np.testing.assert_array_equal(now.params["hidden_1"]["kernel"], np.tile(stays, (4, 1)).T)
    np.testing.assert_array_equal(now.params["output"]["kernel"], np.ones((4, 2)))
    moments = now.opt_state.direction[1]
    for slot in (moments.mu, moments.nu):
        np.testing.assert_array_equal(slot["hidden_0"]["kernel"], 2 * np.tile(stays, (3, 1)))
        np.testing.assert_array_equal(slot["hidden_0"]["bias"], 2 * stays)
        np.testing.assert_array_equal(slot["hidden_1"]["kernel"], 2 * np.tile(stays, (4, 1)).T)
    assert int(moments.count) == 2
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, np.ones_like(x)), now.target)


def test_a_unit_fires_if_any_position_or_copy_does() -> None:
    """crelu: the copies of unit 0 are features 0 and 2."""
    spec = NetworkSpec((3,), 2, widths=(2,), activation="crelu")
    method = self_normalized_resets(initial=1, layers=["hidden_0"])
    loop = make(method, adam(), spec)
    run = loop.init(KEY)
    post = jnp.array([[0.0, 0, 0, 0], [0, 0, 1, 0]])
    facts = loop.context(0)._replace(activations={"hidden_0": Activation(post, post)})
    _, learner = method.step(KEY, *run, facts)
    old, new = (np.asarray(each.params["hidden_0"]["kernel"]) for each in (run.learner, learner))
    np.testing.assert_array_equal((old != new).any(0), [False, True])


@pytest.mark.parametrize("initial", [4, 5, 9])
def test_an_initial_limit_above_the_period_has_no_effect(initial: int) -> None:
    """Unit 0 never fires; unit 1 fires at updates 2 and 3, so that its one silence has 2 updates."""
    method = self_normalized_resets(period=3, initial=initial, longest=9, layers=["hidden_0"])
    spec = NetworkSpec((3,), 2, widths=(2,))
    loop = make(method, adam(), spec)
    run = loop.init(KEY)
    state, learner = run
    limits, ages, resets = [], [], []
    for update, fires in enumerate([[0, 0], [0, 0], [0, 1], [0, 1], [0, 0]]):
        post = jnp.array([fires], jnp.float32)
        facts = loop.context(update)._replace(activations={"hidden_0": Activation(post, post)})
        before = np.asarray(learner.params["hidden_0"]["kernel"])
        state, learner = method.step(jax.random.fold_in(KEY, update), state, learner, facts)
        resets.append((np.asarray(learner.params["hidden_0"]["kernel"]) != before).any(0).tolist())
        limits.append(state["hidden_0"].limit.tolist())
        ages.append(state["hidden_0"].silent.tolist())
    assert limits == [[initial] * 2] * 2 + [[1, 2]] * 3
    assert ages == [[1, 1], [2, 2], [3, 0], [0, 0], [0, 1]]
    assert resets == [[False, False]] * 3 + [[True, False]] * 2


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"initial: 9 is not allowed; must be at most longest \(4\)"):
        self_normalized_resets(initial=9, longest=4)
    method = self_normalized_resets(layers=["hidden_7"])
    loop = make(method, adam(), MLP)
    run: Run = loop.init(KEY)
    with pytest.raises(ValueError, match='layers: "hidden_7" is not allowed; must be all, or a list of: hidden_0'):
        loop.update(KEY, run, jnp.int32(0))
