"""Utilities, ages, budgets and replacements against a NumPy loop from the equations; severing, slots, transfer."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Loop, Run, make

from plasticity.core.counting import precise
from plasticity.core.types import Activation, Context, Learner
from plasticity.interventions import continual_backprop, surgery
from plasticity.interventions.continual_backprop import Ledger, Memory, least_useful
from plasticity.networks.spec import Head, NetworkSpec
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(2)
UPDATES, MATURITY, RATE, DECAY = 200, 8, 0.0317, 0.9
FLAT = NetworkSpec((4, 4, 2), 2, convolutions=CNN.convolutions[:1], widths=(4,))
ALL_AT_ONCE = {"maturity_period": 0, "replacement_rate": 1.0}


def posts_at(update: Any) -> Mapping[str, jax.Array]:
    """Made-up activations of the two layers of the MLP, whose sizes drift so that the least useful unit changes."""
    drift = 1 + jnp.sin(0.05 * update + jnp.arange(5.0))
    first = drift * jnp.sin(1.3 * jnp.arange(15.0) + update).reshape(3, 5)
    return {"hidden_0": first, "hidden_1": drift[:4] * jnp.cos(2.1 * jnp.arange(12.0) - update).reshape(3, 4)}


@functools.cache
def history(utility: str) -> tuple[Any, Any]:
    """The start and 200 steps without learning: states, parameters and replaced units."""
    method = continual_backprop(
        replacement_rate=RATE, decay=DECAY, maturity_period=MATURITY, utility=utility, mean_transfer=True
    )
    loop = make(method, adam())
    start = loop.init(KEY)

    def body(run: Run, update: jax.Array) -> tuple[Run, Any]:
        activations = {name: Activation(post, post) for name, post in posts_at(update).items()}
        facts = loop.context(update)._replace(activations=activations)
        run = Run(*method.step(jax.random.fold_in(KEY, update), *run, facts))
        return run, (run.state, run.learner.params)

    return start, jax.jit(lambda run: jax.lax.scan(body, run, jnp.arange(UPDATES))[1])(start)


class Reference:
    """Layer by layer and unit by unit, in double precision; the fresh weights are given."""

    def __init__(self, params: Any) -> None:
        self.params = jax.tree.map(lambda x: np.array(x, np.float64), params)
        self.age = {"hidden_0": [0] * 5, "hidden_1": [0] * 4}
        self.utility = {name: [0.0] * len(ages) for name, ages in self.age.items()}
        self.mean = {name: [0.0] * len(ages) for name, ages in self.age.items()}
        self.budget = dict.fromkeys(self.age, 0.0)

    def worth(self, kind: str, name: str, unit: int, values: np.ndarray, mean: float, old: Any) -> float:
        leaving = np.abs(old["hidden_1" if name == "hidden_0" else "output"]["kernel"][unit]).mean()
        entering = max(np.abs(old[name]["kernel"][:, unit]).mean(), np.finfo(np.float32).tiny)
        apart = np.abs(values - mean).mean()
        worth = {
            "contribution": np.abs(values).mean() * leaving,
            "adaptable_contribution": apart * leaving / entering,
            "zero_contribution": apart * leaving,
            "weight": leaving,
            "adaptation": 1 / entering,
            "feature_by_input": apart / entering,
        }
        return float(worth[kind])

    def step(self, kind: str, posts: Mapping[str, np.ndarray], fresh: Any) -> None:
        old = jax.tree.map(np.copy, self.params)
        victims = {}
        for name, ages in self.age.items():
            mature, ranked = 0, []
            for unit in range(len(ages)):
                values = posts[name][:, unit]
                ages[unit] += 1
                full = 1 - DECAY ** ages[unit]
                self.mean[name][unit] = DECAY * self.mean[name][unit] + (1 - DECAY) * values.mean()
                worth = self.worth(kind, name, unit, values, self.mean[name][unit] / full, old)
                self.utility[name][unit] = DECAY * self.utility[name][unit] + (1 - DECAY) * worth
                if ages[unit] > MATURITY:
                    mature += 1
                    ranked.append((self.utility[name][unit] / full, unit))
            self.budget[name] += RATE * mature
            if self.budget[name] >= 1:
                self.budget[name] -= 1
                victims[name] = min(ranked)[1]
        for name, unit in victims.items():
            sink = "hidden_1" if name == "hidden_0" else "output"
            mean = self.mean[name][unit] / (1 - DECAY ** self.age[name][unit])
            self.params[sink]["bias"] += mean * old[sink]["kernel"][unit]
        for name, unit in victims.items():
            self.params[name]["kernel"][:, unit] = fresh[name]["kernel"][:, unit]
            self.params[name]["bias"][unit] = 0
            self.age[name][unit], self.utility[name][unit], self.mean[name][unit] = 0, 0.0, 0.0
        for name, unit in victims.items():
            self.params["hidden_1" if name == "hidden_0" else "output"]["kernel"][unit] = 0


QUICK = ("contribution", "adaptable_contribution")
SLOW = ("zero_contribution", "weight", "adaptation", "feature_by_input")


@pytest.mark.parametrize("utility", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_two_hundred_steps_against_numpy(utility: str) -> None:
    start, (states, params) = jax.tree.map(np.asarray, history(utility))
    posts = jax.tree.map(np.asarray, jax.vmap(posts_at)(jnp.arange(UPDATES)))
    reference = Reference(start.learner.params)
    for update in range(UPDATES):
        state, now = jax.tree.map(lambda x, at=update: x[at], (states, params))
        reference.step(utility, {name: post[update] for name, post in posts.items()}, state.fresh)
        for name in ("hidden_0", "hidden_1"):
            np.testing.assert_array_equal(state.ledgers[name].age, reference.age[name], err_msg=f"{update} {name}")
            np.testing.assert_allclose(state.ledgers[name].utility, reference.utility[name], rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(state.ledgers[name].budget.value, reference.budget[name], atol=1e-4)
            np.testing.assert_allclose(state.means[name], reference.mean[name], rtol=1e-3, atol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), now, reference.params)
    born = {unit for unit in range(5) if np.any(states.ledgers["hidden_0"].age[MATURITY:, unit] == 0)}
    assert len(born) > (1 if utility == "weight" else 2)  # a unit without outgoing weights stays the least useful one


def test_no_unit_gets_the_same_fresh_weights_twice() -> None:
    _, (states, _) = history("contribution")
    for name in ("hidden_0", "hidden_1"):
        born, kernels = np.asarray(states.ledgers[name].age) == 0, np.asarray(states.fresh[name]["kernel"])
        for unit in range(born.shape[1]):
            columns = kernels[born[:, unit], :, unit]
            assert len(np.unique(columns, axis=0)) == len(columns)


def births(units: int, updates: int, **settings: Any) -> np.ndarray:
    """The number of units of a layer that are replaced at each update."""
    method = continual_backprop(**settings)
    loop = make(method, sgd(), NetworkSpec((3,), 2, widths=(units,)))
    post = jnp.abs(jnp.sin(jnp.arange(2.0 * units))).reshape(2, units)

    def body(run: Run, update: jax.Array) -> tuple[Run, jax.Array]:
        facts = loop.context(update)._replace(activations={"hidden_0": Activation(post, post)})
        run = Run(*method.step(jax.random.fold_in(KEY, update), *run, facts))
        return run, (run.state.ledgers["hidden_0"].age == 0).sum()

    return np.asarray(jax.jit(lambda run: jax.lax.scan(body, run, jnp.arange(updates))[1])(loop.init(KEY)))


def test_no_burst_at_maturity() -> None:
    """Fifty units ripen together, after 20 updates in which nothing may pile up: half a unit per update from there."""
    born = births(50, 40, replacement_rate=0.01, maturity_period=20)
    assert born[:20].sum() == 0
    assert born[20] == 0
    assert born[21] == 1
    assert born.max() == 1
    assert 7 <= born[20:].sum() <= 0.01 * 50 * 20  # those that were replaced are no longer mature


def test_more_than_one_at_once() -> None:
    """2.5 units per update at first, of which the fraction is kept: 2, 3; one at once drops the excess."""
    several = births(50, 8, replacement_rate=0.05, maturity_period=5, at_once=4)
    assert several[:5].sum() == 0
    assert list(several[5:7]) == [2, 2]  # 2.5, then 0.5 + 0.05 * 48 = 2.9
    assert list(births(50, 8, replacement_rate=0.05, maturity_period=5)) == [0, 0, 0, 0, 0, 1, 1, 1]


def test_by_chance_one_unit_is_replaced_with_the_probability_of_the_fraction() -> None:
    """0.3 of a unit per update, independently: 200 updates have 60 replacements, give or take 6.5."""
    born = births(6, 200, replacement_rate=0.05, maturity_period=0, accumulate=False, decay=0.0)
    assert set(born.tolist()) == {0, 1}
    assert 40 <= born.sum() <= 80
    assert len(set(np.diff(np.flatnonzero(born)).tolist())) > 3  # irregular, unlike a budget


def test_by_chance_the_fraction_above_one_is_dropped() -> None:
    """2.5, 2.4, ... units per update: 2 each time."""
    born = births(50, 8, replacement_rate=0.05, maturity_period=3, accumulate=False, at_once=10)
    assert list(born) == [0, 0, 0, 2, 2, 2, 2, 2]
    assert list(births(50, 5, replacement_rate=0.05, maturity_period=3, accumulate=False)) == [0, 0, 0, 1, 1]


def test_a_random_choice_ignores_the_activations() -> None:
    """Ten units of which one is far larger: over 300 updates each is chosen about 30 times."""
    method = continual_backprop(replacement_rate=1.0, maturity_period=0, utility="random")
    loop = make(method, sgd(), NetworkSpec((3,), 2, widths=(10,)))
    post = jnp.ones((2, 10)).at[:, 4].set(1000.0)

    def body(run: Run, update: jax.Array) -> tuple[Run, jax.Array]:
        facts = loop.context(update)._replace(activations={"hidden_0": Activation(post, post)})
        run = Run(*method.step(jax.random.fold_in(KEY, update), *run, facts))
        return run, run.state.ledgers["hidden_0"].age == 0

    born = np.asarray(jax.jit(lambda run: jax.lax.scan(body, run, jnp.arange(300))[1])(loop.init(KEY)))
    assert (born.sum(1) == 1).all()
    assert 12 <= born.sum(0).min() <= born.sum(0).max() <= 52


def learned(spec: NetworkSpec, rule: Any, **settings: Any) -> tuple[Loop, Any, Run, Context]:
    """A learner with random parameters and slots of 2, the context of an update on four inputs, fresh values of 7."""
    method = continual_backprop(**settings)
    loop = make(method, rule, spec)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(loop.init, KEY).learner
    params = jax.tree.map(lambda x: 0.5 * rng.normal(size=x.shape).astype(x.dtype), shapes.params)
    slots = jax.tree.map(lambda x: np.full(x.shape, 2, x.dtype), shapes.opt_state)
    fresh = shapes._replace(params=jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), params), opt_state=slots)
    inputs = rng.normal(size=(4, *spec.observation)).astype(np.float32)
    activations = jax.jit(loop.network.forward)(params, inputs)[1]
    facts = {"activations": activations, "observation": inputs, "fresh": lambda key: fresh}
    run = Run(method.init(KEY, params, loop.network), Learner(params, params, slots))
    return loop, method, run, loop.context(0)._replace(**facts)


def stepped(method: Any, run: Run, facts: Context) -> tuple[Memory, Learner]:
    found: tuple[Memory, Learner] = jax.jit(lambda run: method.step(KEY, *run, facts))(run)
    return found


def born_of(state: Memory, loop: Loop) -> dict[str, jax.Array]:
    return {name: state.ledgers[name].age == 0 for (name,) in loop.network.hidden}


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        (MLP, adam()),
        (CNN, sgd(momentum=0.9)),
        (NetworkSpec((3,), 3, widths=(4,), normalisation="layer", activation="crelu"), adam()),
        (NetworkSpec((3,), 3, widths=(4,), heads=(Head("value", 1, (3,)), Head("advantage", 2))), adam()),
    ],
)
def test_by_number_is_the_same_as_by_mask(spec: NetworkSpec, rule: Any) -> None:
    """The rows and columns written are those of ``surgery.reinitialise``, in parameters and slots."""
    loop, method, run, facts = learned(spec, rule, **ALL_AT_ONCE)
    state, learner = stepped(method, run, facts)
    born = born_of(state, loop)
    assert all(int(units.sum()) == 1 for units in born.values())
    masks = surgery.unit_masks(loop.network, run.learner.params, born)
    expected = surgery.reinitialise(run.learner, *masks, facts.fresh(KEY).params, loop.optimizer)
    jax.tree.map(np.testing.assert_array_equal, learner, expected)


def test_slots_may_stay() -> None:
    _, method, run, facts = learned(MLP, adam(), **ALL_AT_ONCE, optimizer_slots=False)
    _, learner = stepped(method, run, facts)
    jax.tree.map(np.testing.assert_array_equal, learner.opt_state, run.learner.opt_state)


@pytest.mark.parametrize(("spec", "layer"), [(MLP, "hidden_1"), (FLAT, "hidden_1")])
def test_mean_transfer_keeps_the_mean_input_of_the_next_layer(spec: NetworkSpec, layer: str) -> None:
    settings = {**ALL_AT_ONCE, "decay": 0.0}
    for transfer in (True, False):
        _, method, run, facts = learned(replace(spec, activation="tanh"), adam(), **settings, mean_transfer=transfer)
        state, learner = stepped(method, run, facts)
        # Later layers see other activations once earlier ones have changed: hold them at what was seen.
        kernel, bias = learner.params[layer]["kernel"], learner.params[layer]["bias"]
        name = f"hidden_{int(layer[-1]) - 1}"
        after = facts.activations[name].post.reshape(4, -1) @ kernel + bias
        kept = np.asarray(state.ledgers[layer].age > 0)
        same = np.allclose(after.mean(0)[kept], facts.activations[layer].pre.mean(0)[kept], atol=1e-5)
        assert same == transfer


def test_severed_until_it_learns() -> None:
    loop, method, run, facts = learned(MLP, adam(), **ALL_AT_ONCE)
    state, learner = stepped(method, run, facts)
    apply = jax.jit(loop.network.forward)
    before = apply(learner.params, facts.observation)[0]
    louder = {**learner.params["hidden_1"]}
    louder["bias"] = louder["bias"] + 9.0 * (state.ledgers["hidden_1"].age == 0)
    after = apply({**learner.params, "hidden_1": louder}, facts.observation)[0]
    np.testing.assert_array_equal(before, after)


def test_utility_of_many_rows_is_their_mean() -> None:
    """A flattened map under crelu: decay 0 leaves this update's value, worked out position by position."""
    _, method, run, facts = learned(replace(FLAT, activation="crelu"), adam(), decay=0.0, replacement_rate=0.0)
    state, _ = stepped(method, run, facts)
    post, kernel = np.asarray(facts.activations["hidden_0"].post), np.asarray(run.learner.params["hidden_1"]["kernel"])
    leaving = np.abs(kernel).mean(1).reshape(3, 3, 2, 3)  # position, copy, unit
    expected = (np.abs(post).mean(0).reshape(3, 3, 2, 3) * leaving).mean((0, 1, 2))
    np.testing.assert_allclose(state.ledgers["hidden_0"].utility, expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_adaptable_contribution_behind_a_convolution_has_one_mean_for_each_channel(activation: str) -> None:
    """decay 0: ``f'`` is this update's mean over batch and positions, of each copy of crelu by itself."""
    spec = replace(FLAT, activation=activation)
    _, method, run, facts = learned(spec, adam(), decay=0.0, replacement_rate=0.0, utility="adaptable_contribution")
    state, _ = stepped(method, run, facts)
    post = np.asarray(facts.activations["hidden_0"].post, np.float64)  # batch, row, column, copy and channel
    kernels = {name: np.abs(np.asarray(run.learner.params[name]["kernel"])) for name in ("hidden_0", "hidden_1")}
    leaving = kernels["hidden_1"].mean(1).reshape(3, 3, -1, 3)  # row, column, copy, channel
    apart = np.abs(post - post.mean((0, 1, 2))).mean(0).reshape(3, 3, -1, 3)
    expected = (apart * leaving).mean((0, 1, 2)) / kernels["hidden_0"].mean((0, 1, 2))
    np.testing.assert_allclose(state.ledgers["hidden_0"].utility, expected, rtol=1e-5)


@pytest.mark.parametrize("rate", [1e-9, 3e-8])
def test_a_budget_grows_by_less_than_the_spacing_of_floats(rate: float) -> None:
    """A float32 cannot represent 1 + 3e-8; at such a rate a unit is still replaced after enough updates."""
    ledger = Ledger(jnp.array([10**6]), jnp.ones(1), precise(1 - 2**-10))

    def step(ledger: Ledger, _: None) -> tuple[Ledger, jax.Array]:
        picked, budget = least_useful(ledger.utility, ledger.age > 1, ledger.budget, jnp.float32(rate), 1)
        return ledger._replace(budget=budget), picked.replaced[0]

    need = 2**-10 / float(np.float32(rate))
    updates = min(int(1.5 * need), 50_000)
    after, replaced = jax.jit(lambda start: jax.lax.scan(step, start, None, updates))(ledger)
    grown = 1 - 2**-10 + updates * float(np.float32(rate))
    assert replaced.sum() == int(grown)
    assert grown < 1 or abs(int(replaced.argmax()) - need) < 2
    left = float(after.budget.value) + float(after.budget.carry)
    np.testing.assert_allclose(left, grown - int(grown), rtol=1e-9)


def test_an_age_stays_at_the_largest_whole_number() -> None:
    loop = make(continual_backprop(replacement_rate=0.0), sgd(), MLP)
    run = loop.init(KEY)
    oldest = jax.tree.map(lambda x: jnp.full_like(x, 2**31 - 1) if x.dtype == jnp.int32 else x, run.state.ledgers)
    older = run._replace(state=run.state._replace(ledgers=oldest))
    after = jax.jit(loop.update)(KEY, older, jnp.int32(0))
    for ledger in after.state.ledgers.values():
        assert (ledger.age == 2**31 - 1).all() or (ledger.age == 0).all()
        assert np.isfinite(ledger.utility).all()


def trace(spec: NetworkSpec, **settings: Any) -> None:
    loop = make(continual_backprop(**settings), adam(), spec)
    jax.eval_shape(lambda key: loop.update(key, loop.init(key), jnp.int32(0)), KEY)


def test_what_it_needs_is_said_while_tracing() -> None:
    with pytest.raises(ValueError, match="continual_backprop needs a network with hidden units; this one has none"):
        trace(NetworkSpec((3,), 2))
    without = NetworkSpec((3,), 2, widths=(5, 4), bias=False)
    with pytest.raises(ValueError, match="a bias in every layer that follows; hidden_1 has none"):
        trace(without, mean_transfer=True)
    trace(without)
    with pytest.raises(
        ValueError, match='utility: "size" is not allowed; must be one of contribution, adaptable_contribution'
    ):
        continual_backprop(utility="size")  # type: ignore[arg-type]
