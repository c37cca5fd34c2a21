"""Modulation of a frozen network: by hand, what learns when, and what stays."""

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from update_loop import CNN, MLP, Loop, Run, clock_at, joined, make, train

from plasticity.core import trees
from plasticity.core.types import Context, Optimizer
from plasticity.interventions.base import Intervention, clashes, compose
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.hooks import labelled
from plasticity.interventions.modulation import modulation
from plasticity.interventions.perturbation import shrink_perturb
from plasticity.interventions.resets import optimizer_reset, reset
from plasticity.interventions.restriction import restricted
from plasticity.interventions.task import task_heads
from plasticity.networks.build import build
from plasticity.networks.functions import Functions
from plasticity.networks.modulation import MODULATION, similarities
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru
from plasticity.networks.spec import Convolution, Head, NetworkSpec
from plasticity.optim.named import by_name
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype(np.float32)
TASKS = np.array([0, 1, 1, 0, 1, 0])
TOLD = replace(MLP, task_entries=2)
FORMS = ("low_rank", "scale")


def seen(x: Any, tasks: Any) -> np.ndarray:
    return np.concatenate([x, np.eye(2, dtype=np.float32)[np.asarray(tasks)]], axis=-1)


def unlike(params: Any) -> Any:
    """Other parameters of the same shapes, modulators included."""
    return jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape), params)


def numbers(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def hidden(layer: Any, own: Any, h: np.ndarray, k: int, strength: float) -> np.ndarray:
    """One row of one dense layer under its modulator ``k``."""
    kernel, factor = layer["kernel"], 1.0
    if "down" in own:
        kernel = kernel + strength * own["down"][k] @ own["up"][k]
    else:
        factor = 1.0 + own["change"][k]
    return factor * np.maximum(h @ kernel + layer["bias"], 0)


def by_hand(params: Any, x: Any, choice: Any, strength: float) -> np.ndarray:
    """Row by row the outputs of ``MLP``."""
    params, rows = numbers(params), []
    for h, k in zip(np.asarray(x, np.float64), choice, strict=True):
        for name in ("hidden_0", "hidden_1"):
            h = hidden(params[name], params[MODULATION]["layers"][name], h, k, strength)
        rows.append(h @ params["output"]["kernel"] + params["output"]["bias"])
    return np.stack(rows)


def features(params: Any, x: Any) -> np.ndarray:
    """What the output layer of ``MLP`` reads, without modulation."""
    h, params = np.asarray(x, np.float64), numbers(params)
    for name in ("hidden_0", "hidden_1"):
        h = np.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    return h


def cosines(query: np.ndarray, keys: Any) -> np.ndarray:
    keys = np.asarray(keys, np.float64)
    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(keys, axis=1)
    return query @ keys.T / np.where(lengths > 0, lengths, 1)


# What the network computes.


@pytest.mark.parametrize("choose", ["keys", "task"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "spec", [MLP, CNN, replace(MLP, heads=(Head("a", 1, (3,)), Head("b", 1)))], ids=["mlp", "cnn", "heads"]
)
def test_it_changes_nothing_at_first(spec: NetworkSpec, form: Any, choose: Any) -> None:
    """The parameters are those of the network without it, and its outputs too, bit for bit."""
    spec = replace(spec, task_entries=2) if choose == "task" else spec
    plain, method = build(spec), modulation(form=form, choose=choose, size=3, rank=2)
    network = build(method.network(spec))
    params, before = network.init(KEY), plain.init(KEY)
    for name, part in before.items():
        jax.tree.map(np.testing.assert_array_equal, params[name], part)
    x = RNG.normal(size=(4, *spec.reads)).astype(np.float32)
    outputs, activations = network.forward(params, x)
    expected, shown = plain.forward(before, x)
    np.testing.assert_array_equal(outputs, expected)
    assert set(activations) - set(shown) == ({MODULATION} if choose == "keys" else set())


@pytest.mark.parametrize("form", FORMS)
def test_a_row_is_modulated_by_its_task(form: Any) -> None:
    network = build(modulation(form=form, choose="task", rank=2, alpha=3.0).network(TOLD))
    params = unlike(network.init(KEY))
    made = network.forward(params, seen(X, TASKS))[0]
    np.testing.assert_allclose(made, by_hand(params, X, TASKS, 3.0 / 2), rtol=1e-4, atol=1e-5)
    assert not np.allclose(made, by_hand(params, X, 1 - TASKS, 3.0 / 2), atol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_is_modulated_by_the_nearest_key(form: Any) -> None:
    """Nearest to the features that the network has without modulation."""
    network = build(modulation(form=form, size=5, rank=1, alpha=0.5).network(MLP))
    params = unlike(network.init(KEY))
    expected = cosines(features(params, X), params[MODULATION]["keys"])
    choice = expected.argmax(1)
    assert len(set(choice)) > 1
    made, activations = network.forward(params, X)
    np.testing.assert_allclose(activations[MODULATION].pre, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(activations[MODULATION].post, np.eye(5)[choice])
    np.testing.assert_allclose(made, by_hand(params, X, choice, 0.5), rtol=1e-4, atol=1e-5)


def test_a_query_or_key_of_zero_is_like_none() -> None:
    made = similarities(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[0.0, 2.0], [0.0, 0.0]]))
    np.testing.assert_allclose(made, [[0.0, 0.0], [0.8, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("method", ["patches", "lax"])
def test_convolutions_are_modulated(method: str) -> None:
    """The kernel's change is a small convolution and a product; a scale is that of a channel."""
    spec = NetworkSpec((4, 4, 2), 2, convolutions=(Convolution(3, 2),), task_entries=2, convolution=method, scale=0.5)
    x = RNG.normal(size=(2, 4, 4, 2)).astype(np.float32)
    batch = np.concatenate([x, np.broadcast_to(np.eye(2, dtype=np.float32)[:, None, None], (2, 4, 4, 2))], axis=-1)
    for form in FORMS:
        network = build(modulation(form=form, choose="task", rank=2, alpha=4.0).network(spec))
        params = unlike(network.init(KEY))
        own = params[MODULATION]["layers"]["hidden_0"]
        plain = build(replace(spec, task_entries=0))
        for k in (0, 1):
            alone = {name: params[name] for name in ("hidden_0", "output")}
            if form == "low_rank":
                kernel = alone["hidden_0"]["kernel"] + 2.0 * jnp.einsum("hwcr,ru->hwcu", own["down"][k], own["up"][k])
                alone = trees.put(alone, ("hidden_0", "kernel"), kernel)
            else:  # the output layer reads the channels innermost
                factor = jnp.tile(1.0 + own["change"][k], 9)[:, None]
                alone = trees.put(alone, ("output", "kernel"), factor * alone["output"]["kernel"])
            expected = plain.forward(alone, x)[0][k]
            np.testing.assert_allclose(network.forward(params, batch)[0][k], expected, rtol=1e-4, atol=1e-5)


# What learns, and when.


def task_batch(task: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([task, number])
    return seen(rng.normal(size=(8, 3)), np.full(8, task)).astype(np.float32), rng.normal(size=(8, 2))


def lived(loop: Loop, run: Run, task: int, updates: int, method: Intervention, told: bool = True) -> Run:
    """Updates on batches of one task alone."""
    context: Context = loop.context(jnp.int32(0))

    @jax.jit
    def update(run: Run, inputs: Any, targets: Any, number: Any) -> Run:
        at = context._replace(clock=clock_at(number))

        def loss(params: Any) -> Any:
            outputs, activations = loop.network.forward(params, inputs)
            penalty = method.penalty(run.state, params, at._replace(activations=activations, observation=inputs))
            return jnp.mean((outputs - targets) ** 2) + penalty

        gradients = jax.grad(loss)(run.learner.params)
        updates, slots = loop.optimizer.update(gradients, run.learner.opt_state, run.learner.params, key=KEY, loss=loss)
        learner = run.learner._replace(params=optax.apply_updates(run.learner.params, updates), opt_state=slots)
        return Run(*method.step(KEY, run.state, learner, at))

    for number in range(updates):
        inputs, targets = task_batch(task, number)
        run = update(run, inputs if told else inputs[:, :3], targets, jnp.int32(number))
    return run


def switched(loop: Loop, run: Run) -> Run:
    run = loop.switch(KEY, run, jnp.int32(9))
    return run._replace(learner=run.learner._replace(rest={}))


def moved(before: Any, after: Any) -> dict[str, bool]:
    """By path: whether any number there is another one."""
    names = ["/".join(path) for path in trees.paths(before)]
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return {name: not np.array_equal(a, b) for name, (a, b) in zip(names, pairs, strict=True)}


RULES: dict[str, Optimizer] = {
    "adam": adam(learning_rate=0.01),
    "adamw": by_name(name="adamw", learning_rate=0.01, arguments={"weight_decay": 0.1}),
    "momentum": sgd(learning_rate=0.01, momentum=0.9),
}


@pytest.mark.parametrize("outputs", ["learn", "frozen"])
@pytest.mark.parametrize("rule", RULES)
def test_after_the_switch_only_modulation_and_outputs_learn(rule: str, outputs: Any) -> None:
    """Also against momentum and weight decay, inside the optimizer and before it in the list."""
    method = compose(weight_decay(rate=0.1), modulation(size=3, rank=2, outputs=outputs))
    loop = make(method, RULES[rule])
    start = loop.init(KEY)
    first = lived(loop, start, 0, 3, method, told=False)
    changed = moved(start.learner.params, first.learner.params)
    assert {name for name, did in changed.items() if did} == {
        f"{layer}/{part}" for layer in ("hidden_0", "hidden_1", "output") for part in ("kernel", "bias")
    }
    run = switched(loop, first)
    assert {name for name, did in moved(first.learner.params, run.learner.params).items() if did} == {
        "modulation/frozen"
    }
    last = lived(loop, run, 1, 3, method, told=False)
    changed = moved(run.learner.params, last.learner.params)
    learns = {f"modulation/layers/hidden_{i}/{part}" for i in (0, 1) for part in ("up", "down")} | {"modulation/keys"}
    learns |= {"output/kernel", "output/bias"} if outputs == "learn" else set()
    assert {name for name, did in changed.items() if did} == learns


@pytest.mark.parametrize("form", FORMS)
def test_what_is_said_in_old_tasks_stays_bit_for_bit(form: Any) -> None:
    method = compose(task_heads(), optimizer_reset(what="slots"), modulation(form=form, choose="task", rank=2))
    loop = make(method, adam(learning_rate=0.01))
    run = switched(loop, lived(loop, loop.init(KEY), 0, 3, method))
    run = switched(loop, lived(loop, run, 0, 3, method))  # the first task's own modulators have learned, too
    old, new = task_batch(0, 99)[0], task_batch(1, 99)[0]
    before = [loop.network.forward(run.learner.params, batch)[0] for batch in (old, new)]
    run = lived(loop, run, 1, 5, method)
    after = [loop.network.forward(run.learner.params, batch)[0] for batch in (old, new)]
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1], atol=1e-3)


def test_the_pull_moves_the_chosen_keys_alone() -> None:
    """``strength (1 - cos)`` in the mean over rows, with the gradient of the cosine with respect to the key."""
    method = modulation(size=5, strength=0.7)
    network = build(method.network(MLP))
    params = trees.put(unlike(network.init(KEY)), (MODULATION, "frozen"), jnp.ones(()))
    context: Any = make(method, adam()).context(jnp.int32(0))

    def penalty(params: Any) -> Any:
        return method.penalty((), params, context._replace(activations=network.forward(params, X)[1]))

    value, slope = jax.value_and_grad(penalty)(params)
    query, keys = features(params, X), np.asarray(params[MODULATION]["keys"], np.float64)
    found = cosines(query, keys)
    choice = found.argmax(1)
    np.testing.assert_allclose(value, 0.7 * (1 - found.max(1)).mean(), rtol=1e-5)
    expected = np.zeros_like(keys)
    for q, k in zip(query, choice, strict=True):
        length, unit = np.linalg.norm(keys[k]), q / np.linalg.norm(q)
        expected[k] -= 0.7 / 6 * (unit / length - (unit @ keys[k]) * keys[k] / length**3)
    np.testing.assert_allclose(slope[MODULATION]["keys"], expected, rtol=1e-3, atol=1e-6)
    assert 0 < len(set(choice)) < 5
    others = {name: part for name, part in slope.items() if name != MODULATION} | slope[MODULATION]["layers"]
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(others))


def test_only_the_modulators_of_the_batch_s_task_get_a_gradient() -> None:
    network = build(modulation(choose="task", rank=2).network(TOLD))
    params = trees.put(unlike(network.init(KEY)), (MODULATION, "frozen"), jnp.ones(()))
    slope = jax.grad(lambda params: jnp.sum(network.forward(params, seen(X, np.ones(6, int)))[0] ** 2))(params)
    for leaf in jax.tree.leaves(slope[MODULATION]["layers"]):
        assert (np.asarray(leaf)[0] == 0).all()
        assert (np.asarray(leaf)[1] != 0).any()
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves([slope["hidden_0"], slope["hidden_1"]]))


def test_it_freezes_after_an_update() -> None:
    method = modulation(freeze="update", at=3, size=3)
    loop = make(method, adam(learning_rate=0.01))
    history = [loop.init(KEY)]
    for number in range(5):
        history.append(train(loop, KEY, history[-1], 1, number))
    marks = [float(run.learner.params[MODULATION]["frozen"]) for run in history]
    assert marks == [0, 0, 0, 1, 1, 1]
    steps = [moved(a.learner.params, b.learner.params)["hidden_0/kernel"] for a, b in itertools.pairwise(history)]
    assert steps == [True, True, True, False, False]


def test_noise_on_all_parameters_does_not_freeze_and_a_reset_network_learns_again() -> None:
    noisy = make(compose(shrink_perturb(when="periodic", period=1, which="all"), modulation(size=3)), adam())
    run = train(noisy, KEY, noisy.init(KEY), 2)
    assert float(run.learner.params[MODULATION]["frozen"]) == 0
    run = train(noisy, KEY, switched(noisy, run), 2)
    assert float(run.learner.params[MODULATION]["frozen"]) == 1
    loop = make(compose(modulation(size=3), reset()), adam())
    run = train(loop, KEY, switched(loop, switched(loop, loop.init(KEY))), 1)
    after = train(loop, KEY, run, 1, 1)
    assert moved(run.learner.params, after.learner.params)["hidden_0/kernel"]


def test_it_can_be_that_of_one_of_several_networks() -> None:
    method = restricted(modulation(size=3, rank=1), ["actor"])
    loop = joined(method, adam(learning_rate=0.01), ("actor", "critic"))
    assert MODULATION not in loop.init(KEY).learner.params["critic"]
    run = switched(loop, train(loop, KEY, loop.init(KEY), 2))
    after = train(loop, KEY, run, 2, 2)
    changed = moved(run.learner.params, after.learner.params)
    assert not changed["actor/hidden_0/kernel"]
    assert changed["actor/modulation/layers/hidden_0/up"]
    assert changed["actor/modulation/keys"]
    assert changed["critic/hidden_0/kernel"]


# What is refused.


def recurrent(**settings: Any) -> NetworkSpec:
    torso = {"torso": lambda *given: mlp(*given, widths=(4,))}
    spec: NetworkSpec = gru(jax.ShapeDtypeStruct((3,), jnp.float32), 2, units=4, **torso, **settings)
    return spec


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: modulation(form="lora"), 'form: "lora" is not allowed; must be one of low_rank, scale'),
        (lambda: modulation(choose="nearest"), 'choose: "nearest" is not allowed; must be one of keys, task'),
        (lambda: modulation(freeze="never"), 'freeze: "never" is not allowed; must be one of switch, update'),
        (lambda: modulation(outputs="new"), 'outputs: "new" is not allowed; must be one of learn, frozen'),
        (lambda: modulation(rank=0), "rank: 0 is not allowed; must be an integer of at least 1"),
        (lambda: modulation(size=0), "size: 0 is not allowed; must be an integer of at least 1"),
        (lambda: modulation(alpha=0.0), "alpha: 0.0 is not allowed; must be above 0 and finite"),
        (lambda: modulation(at=0), "at: 0 is not allowed; must be an integer of at least 1"),
        (lambda: modulation().network(replace(MLP, widths=())), "modulation needs a network with a dense hidden layer"),
        (lambda: modulation().network(recurrent()), "choose: keys is not allowed; it needs a network without memory"),
        (lambda: modulation(choose="task").network(MLP), "needs observations that end in the task"),
        (
            lambda: make(compose(task_heads(), modulation(outputs="frozen")), adam()).init(KEY),
            "outputs: frozen is not allowed with task_heads",
        ),
        (
            lambda: labelled("modulation", modulation()).network(
                Functions(jnp.zeros(3), 2, lambda key: {}, lambda params, x: (x, {}))  # type: ignore[arg-type]
            ),
            "needs a network given as a graph",
        ),
    ],
)
def test_what_is_refused(made: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        made()
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_with_memory_is_modulated_by_the_task() -> None:
    """Its cell is not; a sequence gives what its steps give."""
    spec = modulation(choose="task", rank=1).network(replace(recurrent(), task_entries=2))
    network = build(spec)
    params = unlike(network.init(KEY))
    (name,) = params[MODULATION]["layers"]
    assert name != "memory"
    rows, carry = seen(X, TASKS), network.initial(6)
    whole, _, _ = network.apply(params, np.concatenate([rows, rows]), carry, jnp.zeros((2, 6), bool))
    one, _, carry = network.apply(params, rows, carry, jnp.zeros(6, bool))
    two, _, _ = network.apply(params, rows, carry, jnp.zeros(6, bool))
    np.testing.assert_allclose(whole, np.concatenate([one, two]), rtol=1e-5, atol=1e-6)


def test_one_modulation_for_a_network() -> None:
    found = clashes({"a": modulation(), "b": modulation(choose="task")})
    assert found == "interventions: a and b both set the network's modulation; keep one"
