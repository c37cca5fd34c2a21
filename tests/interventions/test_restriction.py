"""Interventions on some of the parts of joined networks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_cases import CASES
from update_loop import Loop, Run, joined
from update_loop import make as single

from plasticity.core.parts import Parts
from plasticity.core.types import Optimizer
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.architecture import layer_norm, rms_norm
from plasticity.interventions.base import Intervention, clashes, compose
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.dormant import redo
from plasticity.interventions.optimization import trac
from plasticity.interventions.penalties import l2
from plasticity.interventions.resets import optimizer_reset, reset
from plasticity.interventions.restriction import restricted
from plasticity.interventions.switch_policy import at_switch
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.eligibility import parts
from plasticity.optim.optimizers import adam, sgd

ACTOR, CRITICS = "actor", ("critic_1", "critic_2")
NAMES = (ACTOR, *CRITICS)
WIDE = NetworkSpec((3,), 2, widths=(6, 4))
KEY = jax.random.key(3)
# These change `rest`.
WHOLE_AGENT = {*(f"at_switch-{part}" for part in ("replay", "schedule", "normaliser")), "reset_and_distill", "altnet"}
COUNTED = ("optimizer_reset", "at_switch", "reset", "fire", "packnet")  # they begin the optimizer's state anew
OWN_REST = {"reset": {"rest": "none"}}  # nor can a restricted reset
SOON = ("l2", "layer_norm", "weight_decay", "optimizer_reset", "soft_reset", "hare_tortoise", "trac", "redo")


def one_for_all() -> Optimizer:
    return adam(learning_rate=0.05)


def one_each(names: tuple[str, ...] = NAMES) -> Optimizer:
    return parts({name: adam(learning_rate=0.05) for name in names})


def method(case: str) -> Intervention:
    made = CASES[case]
    return made(**OWN_REST.get(case.partition("-")[0], {})) if case in OWN_REST else made()


def life(loop: Loop) -> Run:
    """Two updates and a switch, operation by operation: one compiled program may round otherwise than another."""
    run = loop.init(KEY)
    for number in range(2):
        run = loop.update(KEY, run, jnp.int32(number))
    run = loop.switch(KEY, run, jnp.int32(2))
    return run._replace(learner=run.learner._replace(rest={}))


def leaves(tree: Any) -> list[np.ndarray]:
    found = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in found]


def same(one: Any, other: Any) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def slots(state: Any, names: tuple[str, ...]) -> list[Any]:
    """The shares of these parts in an optimizer's state, in order; what belongs to no part is left out."""
    chosen = Parts(names)
    found = jax.tree.leaves(state, is_leaf=chosen.splits)
    return [{name: node[name] for name in names if name in node} for node in found if chosen.splits(node)]


@pytest.fixture(scope="module")
def undisturbed() -> Callable[[Callable[[], Optimizer], bool], Run]:
    """The run without a method; ``told``: on inputs that end in the task."""
    known: dict[Any, Run] = {}

    def run(rule: Callable[[], Optimizer], told: bool) -> Run:
        if (rule, told) not in known:
            known[rule, told] = life(joined(compose()._replace(reads_task=told), rule(), NAMES, WIDE))
        return known[rule, told]

    return run


EACH = [
    pytest.param(case, marks=[] if case.partition("-")[0] in SOON else pytest.mark.slow)
    for case in CASES
    if case not in WHOLE_AGENT
]


@pytest.mark.parametrize("rule", [one_for_all, one_each])
@pytest.mark.parametrize("case", EACH)
def test_the_other_parts_are_as_without_the_method(case: str, rule: Callable[[], Optimizer], undisturbed: Any) -> None:
    """Bit for bit: parameters, target network, and every slot of the optimizer."""
    made = method(case)
    plain, run = undisturbed(rule, made.reads_task), life(joined(restricted(made, [ACTOR]), rule(), NAMES, WIDE))
    for name in CRITICS:
        assert same(run.learner.params[name], plain.learner.params[name])
        assert same(run.learner.target[name], plain.learner.target[name])
    expected = slots(plain.learner.opt_state, CRITICS)
    held = [each for each in slots(run.learner.opt_state, CRITICS) if jax.tree.leaves(each)]
    assert same([each for each in expected if jax.tree.leaves(each)], held)
    assert held


@pytest.mark.parametrize("case", EACH)
def test_the_part_lives_as_if_it_were_alone(case: str) -> None:
    """Bit for bit as the unrestricted method on an agent whose only network is the actor."""
    run = life(joined(restricted(method(case), [ACTOR]), one_each(), NAMES, WIDE))
    alone = life(joined(method(case), one_each((ACTOR,)), (ACTOR,), WIDE))
    assert same(run.learner.params[ACTOR], alone.learner.params[ACTOR])
    assert same(run.learner.target[ACTOR], alone.learner.target[ACTOR])
    assert same(run.state, alone.state)
    assert same(slots(run.learner.opt_state, (ACTOR,)), slots(alone.learner.opt_state, (ACTOR,)))


@pytest.mark.parametrize("rule", [one_for_all, one_each])
@pytest.mark.parametrize("case", EACH)
def test_on_all_parts_it_is_the_method_itself(case: str, rule: Callable[[], Optimizer]) -> None:
    if case.partition("-")[0] in COUNTED and rule is one_for_all:
        pytest.skip("the count of one optimizer for all parts continues")
    run = life(joined(restricted(method(case), [ACTOR, "critic"]), rule(), NAMES, WIDE))
    whole = life(joined(method(case), rule(), NAMES, WIDE))
    assert same(run.state, whole.state)
    assert same(run.learner, whole.learner)


@pytest.mark.parametrize("make", [l2, redo, weight_decay, trac])
def test_lanes_in_a_vmap(make: Callable[[], Intervention]) -> None:
    loop = joined(restricted(make(), ["critic"]), one_each(), NAMES, WIDE)

    def lane(key: Any) -> Any:
        run = loop.init(key)
        for number in range(2):
            run = loop.update(key, run, jnp.int32(number))
        return run.learner.params

    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(lane))(keys)
    for i, key in enumerate(keys):
        for a, b in zip(leaves(many), leaves(lane(key)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-5, atol=1e-6)


def test_a_penalty_pulls_at_its_part_alone() -> None:
    """L2 of the actor, by hand: SGD adds ``-learning_rate strength W`` to its kernels and nothing anywhere else."""
    rule = sgd(learning_rate=0.5)
    run, plain = (
        joined(each, rule, NAMES, WIDE).update(KEY, joined(each, rule, NAMES, WIDE).init(KEY), jnp.int32(0))
        for each in (restricted(l2(strength=0.1), [ACTOR]), compose())
    )
    start = joined(compose(), rule, NAMES, WIDE).init(KEY).learner.params
    for name in NAMES:
        for layer, module in start[name].items():
            moved = run.learner.params[name][layer]["kernel"] - plain.learner.params[name][layer]["kernel"]
            expected = -0.5 * 0.1 * module["kernel"] if name == ACTOR else jnp.zeros_like(moved)
            np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=5e-7)


def test_a_bound_on_the_norm_of_all_gradients_stays_one_bound() -> None:
    """Decay of the critic, behind a clip of the whole gradient: the actor's step is still clipped by the whole norm."""
    rule = sgd(learning_rate=0.5, max_gradient_norm=1e-3)
    decayed = joined(restricted(weight_decay(rate=0.1), ["critic"]), rule, NAMES, WIDE)
    plain = joined(compose(), rule, NAMES, WIDE)
    start = plain.init(KEY).learner.params
    after, free = (each.update(KEY, each.init(KEY), jnp.int32(0)).learner.params for each in (decayed, plain))
    step = jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (free, start)), strict=True)))
    np.testing.assert_allclose(step, 0.5 * 1e-3, rtol=1e-3)
    assert same(after[ACTOR], free[ACTOR])
    kernel = start["critic_2"]["hidden_0"]["kernel"]
    np.testing.assert_allclose(
        after["critic_2"]["hidden_0"]["kernel"], free["critic_2"]["hidden_0"]["kernel"] - 0.1 * kernel, atol=1e-7
    )


def test_counts_of_one_optimizer_each_are_those_of_the_part() -> None:
    loop = joined(restricted(optimizer_reset(what="counts"), ["critic"]), one_each(), NAMES, WIDE)
    state = life(loop).learner.opt_state
    assert [int(state[name].done) for name in NAMES] == [2, 0, 0]


def test_counts_of_one_optimizer_for_all_are_refused() -> None:
    loop = joined(restricted(optimizer_reset(what="counts"), ["critic"]), one_for_all(), NAMES, WIDE)
    with pytest.raises(ValueError, match="changes only counts or a schedule of the optimizer"):
        life(loop)


@pytest.mark.parametrize("make", [lambda: at_switch(replay="clear"), reset])
def test_what_belongs_to_the_whole_agent_is_refused(make: Callable[[], Intervention]) -> None:
    loop = joined(restricted(make(), [ACTOR]), one_for_all(), NAMES, WIDE)
    with pytest.raises(ValueError, match="changes the replay, which belongs to the whole agent"):
        life(loop)


@pytest.mark.parametrize("make", [l2, layer_norm, weight_decay, redo])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("actr", 'modules: "actr" is not allowed; must be a list of: actor, critic_1, critic_2, critic (all of them)'),
        ("critik", "did you mean `critic`?"),
        ("critic_3", "did you mean `critic`?"),
    ],
)
def test_an_unknown_part(make: Callable[[], Intervention], name: str, words: str) -> None:
    with pytest.raises(ValueError, match="modules") as caught:
        joined(restricted(make(), [name]), one_for_all(), NAMES, WIDE).init(KEY)
    assert words in str(caught.value)


@pytest.mark.parametrize("make", [l2, layer_norm, weight_decay])
def test_a_network_without_parts(make: Callable[[], Intervention]) -> None:
    with pytest.raises(ValueError, match="network has no parts; leave out `modules`"):
        single(restricted(make(), ["hidden_0"]), one_for_all()).init(KEY)


def test_reset_takes_parts_among_its_modules() -> None:
    """``critic`` means both critics, and the reset is that of their modules."""
    one, other = (
        life(joined(reset(modules=names), one_for_all(), NAMES, WIDE)).learner
        for names in (
            ["critic"],
            [f"{part}/{layer}" for part in CRITICS for layer in ("hidden_0", "hidden_1", "output")],
        )
    )
    assert same(one, other)
    fresh = joined(compose(), one_for_all(), NAMES, WIDE).context(jnp.int32(2)).fresh(KEY).params
    assert same(one.params["critic_2"], fresh["critic_2"])
    assert not same(one.params[ACTOR], fresh[ACTOR])


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ([ACTOR], ["critic"], False),
        (["critic_1"], ["critic_2"], False),
        (["critic_1"], ["critic"], True),
        ([ACTOR, "critic_1"], ["critic_1"], True),
    ],
)
def test_clashes_only_on_the_same_part(one: list[str], other: list[str], clash: bool) -> None:
    named = {"layer_norm": restricted(layer_norm(), one), "rms_norm": restricted(rms_norm(), other)}
    assert (clashes(named) is not None) == clash
    assert clashes({**named, "layer_norm": layer_norm()}) is not None


def test_parameters_that_act_hide_those_of_earlier_tasks() -> None:
    """A view changes the parameters that learn, of which a method that acts with others would make nothing."""
    found = clashes({"a": INTERVENTIONS["hare_tortoise"](), "b": INTERVENTIONS["reset_and_distill"]()})
    assert found == "interventions: a and b both choose the parameters with which earlier tasks are evaluated; keep one"
    assert clashes({"a": INTERVENTIONS["hare_tortoise"](), "b": INTERVENTIONS["ewc"]()}) is None


def test_two_normalisations_on_two_parts() -> None:
    both = compose(restricted(layer_norm(), [ACTOR]), restricted(rms_norm(), ["critic"]))
    params = joined(both, one_for_all(), NAMES, WIDE).init(KEY).learner.params
    assert set(params[ACTOR]["hidden_0"]["norm"]) == {"scale", "offset"}
    assert set(params["critic_2"]["hidden_0"]["norm"]) == {"scale"}


def test_methods_on_two_parts_live_side_by_side() -> None:
    """Two wrapped optimizers: each part as if its own method were the only one."""
    both = compose(restricted(trac(), [ACTOR]), restricted(weight_decay(rate=0.1), ["critic"]))
    run = life(joined(both, one_each(), NAMES, WIDE)).learner.params
    alone = {
        name: life(joined(restricted(each, [name]), one_each(), NAMES, WIDE)).learner.params
        for name, each in ((ACTOR, trac()), ("critic", weight_decay(rate=0.1)))
    }
    assert same(run[ACTOR], alone[ACTOR][ACTOR])
    assert same(run["critic_1"], alone["critic"]["critic_1"])


def test_the_reported_step_size_is_that_of_the_parts() -> None:
    rule = parts({ACTOR: adam(learning_rate=0.1), **{name: adam(learning_rate=0.3) for name in CRITICS}})
    for names, rate in ((["critic"], 0.3), ([ACTOR], 0.1)):
        loop = joined(restricted(weight_decay(), names), rule, NAMES, WIDE)
        np.testing.assert_allclose(loop.optimizer.learning_rate(loop.init(KEY).learner.opt_state), rate, rtol=1e-6)
