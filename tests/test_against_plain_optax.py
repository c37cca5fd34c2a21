"""The loss of plasticity itself, against a program of forty lines that shares nothing with the testbed but the data."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import plasticity
from plasticity.config import experiments
from plasticity.runs import launch

SAMPLES, CLASSES, VISITS, STEPS, SEEDS = 1000, 10, 10, 1500, 3
KINDS = {
    "default": (optax.adam(1e-3, eps=1e-9), {"eps": 1e-9}),
    "tuned": (optax.adam(1e-3, b2=0.9, eps=1e-9, eps_root=1e-3), {"eps": 1e-9, "b2": 0.9, "eps_root": 1e-3}),
}


def plain(rule, seed):
    """Accuracy of each visit, and the share of units that are dead at its end."""
    pixels = load_digits().data[:SAMPLES]
    inputs = jnp.asarray((pixels - pixels.mean()) / pixels.std(), jnp.float32)
    rng = np.random.default_rng(seed)
    sizes = (64, 256, 256, CLASSES)
    params = [
        (jnp.asarray(rng.normal(size=(a, b)) * np.sqrt(2 / a), jnp.float32), jnp.zeros(b))
        for a, b in itertools.pairwise(sizes)
    ]

    def hidden(params, x):
        layers = []
        for kernel, bias in params[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
            layers.append(x)
        return layers

    def loss(params, x, y):
        logits = hidden(params, x)[-1] @ params[-1][0] + params[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), (logits.argmax(-1) == y).mean()

    def step(carry, rows, labels):
        params, state = carry
        (_, accuracy), slope = jax.value_and_grad(loss, has_aux=True)(params, inputs[rows], labels[rows])
        updates, state = rule.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), accuracy

    visit = jax.jit(lambda carry, rows, labels: jax.lax.scan(lambda c, r: step(c, r, labels), carry, rows))
    carry, found = (params, rule.init(params)), []
    for _ in range(VISITS):
        labels = jnp.asarray(rng.integers(0, CLASSES, SAMPLES))
        carry, accuracy = visit(carry, jnp.asarray(rng.integers(0, SAMPLES, (STEPS, 64))), labels)
        dead = np.concatenate([(layer <= 0).all(0) for layer in hidden(carry[0], inputs)]).mean()
        found.append((float(accuracy.mean()), float(dead)))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adam_loses_plasticity_as_in_a_plain_program(kind, tmp_path):
    """Means of three seeds by visit: close until the network collapses, which happens at the same time."""
    rule, settings = KINDS[kind]
    document = {
        "name": "plain",
        "stream": {"kind": "relabelled", "inputs": "digits", "samples": SAMPLES, "tasks": VISITS,
                   "steps_per_task": STEPS, "envs": 64},
        "agent": {"kind": "classifier", "network": {"kind": "mlp", "widths": [256, 256]},
                  "optimizer": {"kind": "adam", "learning_rate": 1e-3, **settings}},
        "monitors": [{"kind": "dead_units", "every": STEPS}],
        "probe_size": SAMPLES,
        "seeds": SEEDS,
    }  # fmt: skip
    run = plasticity.run(experiments.read_experiment(document, launch.registry()), tmp_path / "run")
    expected = np.mean([plain(rule, seed) for seed in range(SEEDS)], axis=0)
    accuracy = run.visits.groupby("visit")["performance"].mean().to_numpy()
    dead = run.metrics.groupby("visit")["dead_units"].last().to_numpy()
    np.testing.assert_allclose(accuracy[:3], expected[:3, 0], atol=0.03)
    np.testing.assert_allclose(dead[:3], expected[:3, 1], atol=0.03)
    collapsed = (accuracy[-1], expected[-1, 0], dead[-1], expected[-1, 1])
    if kind == "default":
        assert max(collapsed[:2]) < 0.2
        assert min(collapsed[2:]) > 0.45
    else:
        assert min(collapsed[:2]) > 0.2
        assert max(collapsed[2:]) < 0.4
