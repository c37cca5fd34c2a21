"""Whole, partial and optimizer-only resets, at switches and at periods."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from update_loop import Loop, Run, make, train

from plasticity.core.types import Learner
from plasticity.interventions import hare_tortoise, l2_init, optimizer_reset, reset
from plasticity.interventions.base import Intervention, compose, unchanged
from plasticity.networks.graph import Node
from plasticity.networks.operations import Recurrent
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear

KEY = jax.random.key(5)
SWITCH = jax.random.key(6)
OPTIMIZER = adam(learning_rate=0.05, schedule=functools.partial(linear, duration=10))


@pytest.fixture(scope="module")
def worn() -> Run:
    """A learner after three updates, whose target differs from its parameters."""
    loop = make(Intervention(), OPTIMIZER)
    run = jax.jit(lambda key: train(loop, key, loop.init(key), 3))(KEY)
    return run


def same(a: object, b: object) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def switched(worn: Run, **settings: object) -> tuple[Loop, Run]:
    loop = make(reset(**settings), OPTIMIZER)
    return loop, loop.switch(SWITCH, worn, jnp.int32(3))


def test_as_it_stands_it_is_the_fresh_control(worn: Run) -> None:
    loop, run = switched(worn)
    fresh = loop.context(jnp.int32(3)).fresh(SWITCH)
    assert same(run.learner, fresh)
    assert float(OPTIMIZER.learning_rate(run.learner.opt_state)) == pytest.approx(0.05)
    assert float(OPTIMIZER.learning_rate(worn.learner.opt_state)) == pytest.approx(0.035)


def test_parts_of_a_whole_reset_are_options(worn: Run) -> None:
    loop, run = switched(worn, target=False, optimizer=False, rest="none")
    assert same(run.learner.params, loop.context(jnp.int32(3)).fresh(SWITCH).params)
    assert same(run.learner.target, worn.learner.target)
    assert same(run.learner.opt_state, worn.learner.opt_state)
    np.testing.assert_array_equal(run.learner.rest["replay"], [1.0, 1.0])


def test_named_parts_of_the_rest(worn: Run) -> None:
    _, run = switched(worn, rest=["schedule"])
    assert int(run.learner.rest["schedule"]) == 0
    np.testing.assert_array_equal(run.learner.rest["replay"], [1.0, 1.0])
    with pytest.raises(
        ValueError, match='rest: "buffer" is not allowed; must be auto, all, none, or a list of: replay, schedule'
    ):
        switched(worn, rest=["buffer"])


@pytest.mark.parametrize(("modules", "names"), [("last", {"output"}), (["hidden_1", "output"], {"hidden_1", "output"})])
def test_a_partial_reset_keeps_the_others_bit_for_bit(worn: Run, modules: object, names: set[str]) -> None:
    loop, run = switched(worn, modules=modules)
    fresh = loop.context(jnp.int32(3)).fresh(SWITCH)
    new, old = run.learner, worn.learner
    adam_new, adam_old = new.opt_state.direction[1], old.opt_state.direction[1]
    for name in old.params:
        assert same(new.params[name], (fresh if name in names else old).params[name])
        assert same(new.target[name], (fresh.params if name in names else old.target)[name])
        for slot in ("mu", "nu"):
            expected = fresh.opt_state.direction[1] if name in names else adam_old
            assert same(getattr(adam_new, slot)[name], getattr(expected, slot)[name])
    assert int(adam_new.count) == int(adam_old.count) == int(new.opt_state.done) == 3
    np.testing.assert_array_equal(new.rest["replay"], [1.0, 1.0])


def test_partial_without_slots_and_target(worn: Run) -> None:
    _, run = switched(worn, modules="last", target=False, optimizer=False)
    assert same(run.learner.target, worn.learner.target)
    assert same(run.learner.opt_state, worn.learner.opt_state)
    assert not same(run.learner.params, worn.learner.params)


@pytest.mark.parametrize(
    ("period", "offset", "expected"),
    [
        (2, 0, [False, True, False, True]),
        (2, 1, [False, False, True, False]),
        (1, 2, [False, False, True, True]),
        (3, 1, [False, False, False, True]),
    ],
)
def test_periodic_resets_come_at_the_end_of_each_period(period, offset, expected) -> None:
    """The last of every so many updates, from the offset on, ends with a fresh learner, including its optimizer."""
    loop = make(reset(when="periodic", period=period, offset=offset), OPTIMIZER)
    run = loop.init(KEY)
    is_fresh = []
    update = jax.jit(loop.update)
    for number in range(4):
        run = update(KEY, run, jnp.int32(number))
        is_fresh.append(int(run.learner.opt_state.done) == 0 and same(run.learner.params, run.learner.target))
    assert is_fresh == expected
    assert run.learner.rest == {}


def test_periodic_reset_of_the_last_layer() -> None:
    loop = make(reset(when="periodic", period=2, modules="last"), OPTIMIZER)
    plain = make(Intervention(), OPTIMIZER)
    run = loop.init(KEY)
    expected = plain.init(KEY)._replace(state=run.state)
    for number in range(2):
        run = jax.jit(loop.update)(KEY, run, jnp.int32(number))
        expected = jax.jit(plain.update)(KEY, expected, jnp.int32(number))
    assert same(run.learner.params["hidden_0"], expected.learner.params["hidden_0"])
    assert not same(run.learner.params["output"]["kernel"], expected.learner.params["output"]["kernel"])
    np.testing.assert_array_equal(run.learner.params["output"]["bias"], [0.0, 0.0])


def test_never_is_nothing() -> None:
    for factory in (reset, optimizer_reset):
        assert factory(when="never") == Intervention()
        assert factory(when="switch").step is unchanged


@pytest.mark.parametrize(("what", "done", "moments"), [("all", 0, False), ("slots", 3, False), ("counts", 0, True)])
def test_optimizer_reset(worn: Run, what: str, done: int, moments: bool) -> None:
    loop = make(optimizer_reset(what=what), OPTIMIZER)
    new = loop.switch(SWITCH, worn, jnp.int32(3)).learner
    state = new.opt_state.direction[1]
    assert int(new.opt_state.done) == int(state.count) == done
    assert same(state.mu, worn.learner.opt_state.direction[1].mu) is moments
    assert same((new.params, new.target), (worn.learner.params, worn.learner.target))


@pytest.fixture(scope="module")
def quiet() -> optax.OptState:
    """Adam's state after 10,000 gradients of 1e-6."""
    rule = adam(learning_rate=1.0)
    params = {"w": jnp.zeros(())}

    def body(state: optax.OptState, _: None) -> tuple[optax.OptState, None]:
        return rule.update({"w": jnp.float32(1e-6)}, state, params)[1], None

    return jax.lax.scan(body, rule.init(params), length=10_000)[0]


@pytest.mark.parametrize(
    ("what", "first", "largest"),
    [
        (None, 3.162, 6.568),
        ("all", 1.0, 1.0),
        ("counts", 1.0, 1.0),
        ("slots", 3.162, 6.568),
        ("first_moment", 3.162, 6.568),
        ("second_moment", 3.162, 6.568),
    ],
)
def test_which_reset_keeps_adam_from_over_stepping(
    quiet: optax.OptState, what: str | None, first: float, largest: float
) -> None:
    """After a quiet phase gradients of 1 begin: it is the count (Adam-Rel) that matters, since the moments are ~0."""
    rule, state, params = adam(learning_rate=1.0), quiet, {"w": jnp.zeros(())}
    if what:
        context = SimpleNamespace(optimizer=rule)
        _, learner = optimizer_reset(what=what).switch(KEY, (), Learner(params, (), state), context)
        state = learner.opt_state

    def body(state: optax.OptState, _: None) -> tuple[optax.OptState, jax.Array]:
        updates, state = rule.update({"w": jnp.ones(())}, state, params)
        return state, -updates["w"]

    steps = np.asarray(jax.lax.scan(body, state, length=50)[1])
    np.testing.assert_allclose(steps[0], first, atol=2e-3)
    np.testing.assert_allclose(steps.max(), largest, atol=3e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"when": "always"}, 'when: "always" is not allowed; must be one of switch, periodic, never'),
        ({"when": "periodic", "period": 0}, "period: 0 is not allowed; must be at least 1"),
        ({"when": "periodic", "rest": "all"}, 'rest: "all" is not allowed with when: periodic; must be none'),
        ({"when": "periodic", "rest": ["replay"]}, r'rest: \["replay"\] is not allowed with when: periodic'),
        ({"modules": "first"}, 'modules: "first" is not allowed; must be one of all, last'),
        ({"modules": []}, "at least one name"),
        ({"rest": "some"}, 'rest: "some" is not allowed; must be one of auto, all, none'),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reset(**settings)


def test_only_what_there_is_can_be_reset() -> None:
    with pytest.raises(
        ValueError, match='what: "third" is not allowed; must be one of all, slots, counts, first_moment, second_moment'
    ):
        optimizer_reset(what="third")


def test_unknown_modules_are_named_with_the_known_ones(worn: Run) -> None:
    with pytest.raises(
        ValueError, match='modules: "torso" is not allowed; must be all, last, or a list of: hidden_0, hidden_1, output'
    ):
        switched(worn, modules=["hidden_0", "torso"])


RECURRENT = NetworkSpec(
    (3,), 2, widths=(4,), body=(Node("memory", Recurrent("rtu", 5)), Node("after", Recurrent("gru", 5), ("memory",)))
)
FRESH = 7.0


def with_memory(modules: list[str]) -> tuple[Learner, Learner]:
    """A learner with parameters of 1 and a carry of 3 before and after a reset of modules at the first update."""
    loop = make(reset(when="periodic", period=1, modules=modules, optimizer=False), OPTIMIZER, RECURRENT)
    shapes = jax.eval_shape(loop.init, KEY).learner
    ones, sevens = (jax.tree.map(lambda x, n=n: jnp.full(x.shape, n), shapes.params) for n in (1.0, FRESH))
    carry = jax.tree.map(lambda x: jnp.full_like(x, 3), loop.network.initial(2))
    learner = shapes._replace(params=ones, target=ones, opt_state=(), carry=carry)
    context = loop.context(jnp.int32(0))._replace(fresh=lambda key: learner._replace(params=sevens))
    method = reset(when="periodic", period=1, modules=modules, optimizer=False)
    return learner, method.step(KEY, (), learner, context)[1]


def test_the_name_of_a_cell_selects_all_of_it_and_clears_its_carry() -> None:
    """Also parameters that are not kernels; the other cell keeps its carry, and so does one that is reset in part."""
    old, new = with_memory(["memory"])
    for name, part in new.params.items():
        assert {float(x) for leaf in jax.tree.leaves(part) for x in leaf.ravel()} == {FRESH if name == "memory" else 1}
    assert same(new.carry["memory"], jax.tree.map(jnp.zeros_like, old.carry["memory"]))
    assert same(new.carry["after"], old.carry["after"])
    _, new = with_memory(["after/input_reset", "output"])
    assert float(new.params["after"]["input_reset"]["kernel"].min()) == FRESH
    assert float(new.params["after"]["input_new"]["kernel"].max()) == 1
    assert same(new.carry, old.carry)


def test_a_wrong_name_of_a_cell_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r'modules: "memmory" is not allowed; .*state_new.*did you mean `memory`'):
        with_memory(["memmory"])


@pytest.mark.parametrize("when", ["switch", "periodic"])
def test_a_whole_reset_resets_the_states_of_all_methods(when: str) -> None:
    """After it, the average that acts and the anchor of a penalty are the fresh parameters; before it, they are not."""
    methods = hare_tortoise(decay=0.9), l2_init(), reset(when=when, period=4)
    loop = make(compose(*methods), adam(learning_rate=0.1))
    run = train(loop, KEY, loop.init(KEY), 3)
    old = jax.tree.leaves(run.state[0])
    assert not np.allclose(old[0], jax.tree.leaves(run.learner.params)[0])
    run = loop.switch(KEY, run, jnp.int32(3)) if when == "switch" else train(loop, KEY, run, 1, start=3)
    jax.tree.map(np.testing.assert_array_equal, run.state[0], run.learner.params)
    anchors = jax.tree.leaves(run.state[1])
    jax.tree.map(np.testing.assert_array_equal, anchors, jax.tree.leaves(run.learner.params))
    assert not np.allclose(old[0], jax.tree.leaves(run.learner.params)[0])
