"""Small members of every family, for tests of the registry, settings and configs."""

from typing import Annotated, Any, Literal

from plasticity.config.fields import BelowOne, Count, Fraction, Member, Natural, NonNegative, Positive, Real, metadata
from plasticity.config.registry import Factory, Registry


def mlp(
    observation: Any, outputs: int, *, widths: tuple[Count, ...] = (8,), activation: Literal["relu", "tanh"] = "relu"
) -> Any:
    return ("mlp", observation, outputs, widths, activation)


def linear(observation: Any, outputs: int, *, bias: bool = True) -> Any:
    return ("linear", observation, outputs, bias)


def adam(*, learning_rate: Positive = 1e-3, b1: BelowOne = 0.9, clip: Positive | None = None) -> Any:
    return ("adam", learning_rate, b1, clip)


def sgd(*, learning_rate: Positive) -> Any:
    return ("sgd", learning_rate)


def learner(
    spec: Any,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    target: Annotated[Any, Member("networks")] = None,
    optimizer: Annotated[Any, Member("optimizers")],
    discount: Fraction = 0.99,
    n_step: Count = 1,
    double: bool = False,
) -> Any:
    return ("learner", spec, network, target, optimizer, discount, n_step, double)


def committee(spec: Any, *, optimizers: Annotated[tuple[Any, ...], Member("optimizers")], offset: Real = 0.0) -> Any:
    return ("committee", spec, tuple(make() for make in optimizers), offset)


@metadata(paper="Krogh, Hertz 1991, A Simple Weight Decay Can Improve Generalization", neutral={"rate": 0.0}, note="l2")
def weight_decay(*, rate: NonNegative = 1e-4, per: Literal["update", "learning_rate"] = "update") -> Any:
    return ("weight_decay", rate, per)


def reset(
    *, when: Literal["switch", "periodic"] = "switch", period: Natural = 0, layers: tuple[str, ...] | None = None
) -> Any:
    return ("reset", when, period, layers)


def layer_norm() -> Any:
    return ("layer_norm",)


def rank(*, delta: Fraction = 0.01) -> Any:
    return ("rank", delta)


def norm() -> Any:
    return ("norm",)


def drift(
    *, fraction: Fraction = 1.0, tasks: Count = 4, scales: dict[str, float] | None = None, label: str = "a"
) -> Any:
    return ("drift", fraction, tasks, scales, label)


FAKES: dict[str, tuple[Factory, ...]] = {
    "networks": (mlp, linear),
    "optimizers": (adam, sgd),
    "agents": (learner, committee),
    "interventions": (weight_decay, reset, layer_norm),
    "monitors": (rank, norm),
    "streams": (drift,),
}


def fake_registry() -> Registry:
    registry = Registry()
    for family, members in FAKES.items():
        registry.register_all(family, {member.__name__: member for member in members})
    return registry
