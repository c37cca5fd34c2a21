"""Mine activations: a small evolutionary search for a non-linearity that keeps a network plastic.

Each candidate is an expression of ``z``. A generation is one run whose arms are its candidates, all on the same data
with the same initial weights; a candidate's score is its mean accuracy over the second half of the visits. The best one
is then compared with ReLU on a held-out stream, with other data and other seeds.

    python examples/mining/mine_activations.py --out runs/mining
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import plasticity
from plasticity import results
from plasticity.networks.nonlinearity import NonLinearity, without_parameters
from plasticity.runs import launch

Expression = tuple[Any, ...]  # ("sin", ("z",)), ("add", ("z",), ("number", 0.5)), ...
UNARY = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "sin": jnp.sin, "abs": jnp.abs}
BINARY = {"add": jnp.add, "multiply": jnp.multiply, "maximum": jnp.maximum}
NUMBERS = (-1.0, -0.5, 0.1, 0.5, 2.0)
DEPTH = 4
Z: Expression = ("z",)
RELU: Expression = ("relu", Z)
STARTS: tuple[Expression, ...] = (RELU, ("tanh", Z), ("multiply", Z, ("sigmoid", Z)), ("add", Z, ("sin", Z)))

SEARCH = {"kind": "relabelled", "inputs": "gaussian", "samples": 128, "dimensions": 16, "classes": 5}
HELD_OUT = {"kind": "permuted_inputs", "inputs": "digits"}
LENGTH = {"tasks": 12, "steps_per_task": 200, "envs": 16}


# Expressions.


def value(expression: Expression, z: Any) -> Any:
    """The expression at ``z``."""
    name, *parts = expression
    if name == "z":
        return z
    if name == "number":
        return jnp.full_like(z, parts[0])
    return {**UNARY, **BINARY}[name](*(value(part, z) for part in parts))


def text(expression: Expression) -> str:
    name, *parts = expression
    if name in ("z", "number"):
        return str(parts[0]) if parts else "z"
    return f"{name}({', '.join(map(text, parts))})"


def parts_of(expression: Expression) -> list[Expression]:
    """The expression and everything inside it."""
    inside = () if expression[0] == "number" else expression[1:]
    return [expression, *(each for part in inside for each in parts_of(part))]


def depth(expression: Expression) -> int:
    return 1 + max((depth(part) for part in expression[1:] if isinstance(part, tuple)), default=0)


def replaced(expression: Expression, number: int, new: Expression) -> Expression:
    """The expression with its part ``number``, in the order of ``parts_of``, replaced."""
    if number == 0:
        return new
    name, *parts = expression
    found, number = [], number - 1
    for part in parts:
        size = len(parts_of(part))
        found.append(replaced(part, number, new) if 0 <= number < size else part)
        number -= size
    return (name, *found)


def drawn(random: np.random.Generator, levels: int) -> Expression:
    """A random expression of at most so many levels."""
    kind = random.choice(["z", "number", "unary", "binary"], p=[0.3, 0.1, 0.35, 0.25]) if levels > 1 else "z"
    if kind == "unary":
        return (str(random.choice(list(UNARY))), drawn(random, levels - 1))
    if kind == "binary":
        return (str(random.choice(list(BINARY))), drawn(random, levels - 1), drawn(random, levels - 1))
    return ("number", float(random.choice(NUMBERS))) if kind == "number" else Z


def mutated(random: np.random.Generator, parents: Sequence[Expression]) -> Expression:
    """One parent with a part replaced by a random expression, by a part of another parent, or wrapped in a function."""
    while True:
        parent, other = (parents[int(random.integers(len(parents)))] for _ in range(2))
        number = int(random.integers(len(parts_of(parent))))
        old = parts_of(parent)[number]
        donors = parts_of(other)
        new = (
            drawn(random, 2),
            donors[int(random.integers(len(donors)))],
            (str(random.choice(list(UNARY))), old),
            (str(random.choice(list(BINARY))), old, drawn(random, 2)),
        )[int(random.integers(4))]
        child = replaced(parent, number, new)
        if depth(child) <= DEPTH and usable(child):
            return child


def usable(expression: Expression) -> bool:
    """Whether its values and slopes are finite and it is not constant."""
    z = jnp.linspace(-4.0, 4.0, 33)
    values, slopes = jax.jvp(lambda z: value(expression, z), (z,), (jnp.ones_like(z),))
    return bool(jnp.isfinite(values).all() and jnp.isfinite(slopes).all() and jnp.ptp(values) > 1e-3)


# Scores.


def registered(expression: Expression) -> str:
    """The expression as a member of the family ``activations``; its name."""
    name = f"mined_{hashlib.sha256(text(expression).encode()).hexdigest()[:12]}"
    known = launch.registry()

    def factory() -> NonLinearity:
        return without_parameters(lambda z: value(expression, z))

    if name not in known["activations"]:
        known.register("activations", name, factory)
    return name


def document(
    stream: Mapping[str, Any], length: Mapping[str, Any], seeds: Any, arms: Mapping[str, str]
) -> dict[str, Any]:
    """The config of a run with an arm for each activation."""
    network = {"kind": "mlp", "widths": [32, 32]}
    return {
        "name": "mining",
        "stream": {**stream, **length},
        "agent": {"kind": "classifier", "network": network, "optimizer": {"kind": "adam", "learning_rate": 3e-3}},
        "arms": {arm: {"agent": {"network": {"activation": name}}} for arm, name in arms.items()},
        "seeds": seeds,
        "record_every": length["steps_per_task"],
    }


def late_accuracy(run: Any) -> Any:
    """By arm and seed, the mean accuracy over the second half of the visits; 0 for a lane that diverged."""
    visits = run.visits
    late = visits[visits.visit >= (visits.visit.max() + 1) // 2]
    return late.fillna({"performance": 0.0}).groupby(["arm", "seed"], observed=True)["performance"].mean().unstack()


def scores(candidates: Sequence[Expression], out: Path, length: Mapping[str, Any]) -> list[float]:
    """The score of each candidate, from one run."""
    names = [registered(each) for each in candidates]
    run = plasticity.run(document(SEARCH, length, 2, dict(zip(names, names, strict=True))), out, force=True)
    found = late_accuracy(run).mean(axis=1)
    return [float(found[name]) for name in names]


def search(out: Path, generations: int, population: int, seed: int, length: Mapping[str, Any]) -> list[Expression]:
    """All expressions that were tried, the best first."""
    random, known = np.random.default_rng(seed), dict[Expression, float]()
    candidates = list(STARTS[:population])
    for generation in range(generations):
        found = scores(candidates, out / f"generation_{generation}", length)
        known |= dict(zip(candidates, found, strict=True))
        ranked = sorted(known, key=lambda each: -known[each])
        print(f"generation {generation}: {known[ranked[0]]:.3f} {text(ranked[0])}")
        candidates = []
        while len(candidates) < population:
            child = mutated(random, ranked[: max(population // 2, 1)])
            if child not in known and child not in candidates:
                candidates.append(child)
    return ranked


def compared(best: Expression, out: Path, seeds: int, length: Mapping[str, Any]) -> str:
    """The best expression against ReLU on the held-out stream: the difference, paired by seed, and what it says."""
    arms = {"relu": "relu", "mined": registered(best)}
    held_out = list(range(1000, 1000 + seeds))
    run = plasticity.run(document(HELD_OUT, length, held_out, arms), out / "held_out", force=True)
    accuracy = late_accuracy(run)
    interval = results.mean_interval((accuracy.loc["mined"] - accuracy.loc["relu"]).to_numpy())
    verdict = "better than ReLU" if interval.low > 0 else "worse than ReLU" if interval.high < 0 else "undecided"
    means = f"{accuracy.loc['mined'].mean():.3f} against {accuracy.loc['relu'].mean():.3f} of ReLU"
    return f"held out: {means}, difference [{interval.low:+.3f}, {interval.high:+.3f}]: {verdict}"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Search for an activation that keeps a network plastic.")
    parser.add_argument("--out", type=Path, default=Path("runs/mining"))
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument("--population", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=8, help="of the comparison with ReLU")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--tasks", type=int, default=LENGTH["tasks"])
    parser.add_argument("--steps", type=int, default=LENGTH["steps_per_task"])
    chosen = parser.parse_args(given)
    length = {**LENGTH, "tasks": chosen.tasks, "steps_per_task": chosen.steps}
    if min(chosen.generations, chosen.population) < 1:
        parser.error("--generations and --population must be at least 1")
    best = search(chosen.out, chosen.generations, chosen.population, chosen.seed, length)[0]
    print(f"found: {text(best)}")
    print(compared(best, chosen.out, chosen.seeds, length))


if __name__ == "__main__":
    main()
