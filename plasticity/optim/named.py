"""Any optimizer of optax by its name, with its own arguments."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from plasticity.config.fields import Member, NonNegative, Positive, metadata
from plasticity.core.errors import nearest, refused, shown, suggestion, unknown
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Optimizer, Params
from plasticity.optim.descent import Descent, Scheduled, clipped, step_size
from plasticity.optim.step_sizes import UnknownStepSize

NEEDS_LOSS = "it needs the loss at every update, which agents do not give"
OWN_NOISE = "it draws noise from a seed of its own, the same for all lanes"
AVERAGES = "it acts with other parameters than those it trains"
# Optimizers of optax that cannot be used here, and why.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("lbfgs", "momo", "momo_adam", "polyak_sgd", "sophia"), NEEDS_LOSS),
    **dict.fromkeys(("noisy_sgd", "dpsgd"), OWN_NOISE),
    "optimistic_adam": "optax has replaced it by optimistic_adam_v2",
    **dict.fromkeys(("schedule_free", "schedule_free_adamw", "schedule_free_sgd"), AVERAGES),
}
# Optimizers that find their step size themselves; ``learning_rate`` is only a factor or a start.
SELF_TUNED = ("cocob", "dadapt_adamw", "dog", "dowg", "prodigy", "rprop")
DEFAULT = "lion"
RESERVED = ("learning_rate", "weight_decay_mask", "mask")


def is_optimizer(factory: Any) -> bool:
    """Whether a public function of optax makes an optimizer from a learning rate."""
    function = factory.func if isinstance(factory, functools.partial) else factory
    return inspect.isfunction(function) and "learning_rate" in inspect.signature(factory).parameters


@functools.cache
def known() -> Mapping[str, Callable[..., optax.GradientTransformation]]:
    """The optimizers of optax and ``optax.contrib`` by name, without those that are refused."""
    public = {**vars(optax.contrib), **vars(optax)}
    return {
        name: factory
        for name, factory in sorted(public.items())
        if not name.startswith(("_", "scale_by_")) and name not in REFUSED and is_optimizer(factory)
    }


def factory_of(name: str) -> Callable[..., optax.GradientTransformation]:
    """The function of optax with this name; ``ValueError`` that suggests the nearest one if it cannot be used."""
    if name in REFUSED:
        raise ValueError(f"name: {shown(name)} is not allowed; {REFUSED[name]}")
    if name not in known():
        raise ValueError(f"name: {unknown(f'optimizer {shown(name)} of optax {optax.__version__}', name, known())}")
    return known()[name]


def arguments_of(factory: Callable[..., Any]) -> list[str]:
    """The arguments of an optimizer of optax that a config may set, without the learning rate."""
    parameters = inspect.signature(factory).parameters
    return [key for key in parameters if key not in RESERVED and not key.endswith("_mask")]


def hint(raw: Mapping[str, Any], key: str) -> str:
    """What to say about an unknown key beside ``arguments``: where optax's argument belongs, or what they are."""
    name = raw.get("name", DEFAULT)
    if not isinstance(name, str) or name not in known():
        return ""
    allowed = arguments_of(known()[name])
    meant = key if key in allowed else nearest(key, allowed)
    if meant:
        return f"`{meant}` is an argument of optax's {name}: write `arguments: {{{meant}: ...}}`"
    return f"optax's {name} has in `arguments`: {', '.join(allowed) or 'none'}"


def check_arguments(name: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` that lists the optimizer's arguments if one is unknown, set elsewhere, or missing."""
    parameters = inspect.signature(factory).parameters
    allowed = arguments_of(factory)
    for key in arguments:
        if key == "learning_rate":
            raise ValueError("arguments.learning_rate is not allowed here; set the optimizer's own `learning_rate`")
        if key not in allowed:
            what = f"unknown argument of optax's {name}; allowed: {', '.join(allowed) or 'none'}"
            raise ValueError(f"arguments.{key}: {what}{suggestion(str(key), allowed)}")
        check_type(f"arguments.{key}", arguments[key], parameters[key].default)
    missing = [key for key in allowed if parameters[key].default is inspect.Parameter.empty and key not in arguments]
    if missing:
        raise ValueError(f"arguments.{missing[0]} is required by optax's {name}")


def check_type(place: str, given: Any, default: Any) -> None:
    """``ValueError`` unless an argument whose default is a truth value or a number is one too."""
    if isinstance(default, bool) and not isinstance(given, bool):
        raise refused(place, given, "true or false")
    number = isinstance(default, int | float) and not isinstance(default, bool)
    if number and (isinstance(given, bool) or not isinstance(given, int | float)):
        raise refused(place, given, "a number")


def checked(name: str, make: Callable[[Number], optax.GradientTransformation]) -> None:
    """Trace one update of a small network; ``ValueError`` with the reason if optax refuses the arguments."""

    def once(rate: Array) -> Any:
        params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
        rule = optax.with_extra_args_support(make(rate))
        return rule.update(params, rule.init(params), params)

    try:
        jax.eval_shape(once, jnp.zeros(()))
    except (TypeError, ValueError, AssertionError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"arguments: optax's {name} refuses them: {reason}") from error


@metadata(
    checked="optax itself, for lion, adamw, nadam, lamb and adopt; the others by contracts only (shapes)",
    note="the equations, arguments and defaults are optax's; see its documentation",
    hint=hint,
)
def by_name(
    *,
    name: str = DEFAULT,
    learning_rate: NonNegative = 1e-4,
    arguments: dict[str, Any] = {},  # noqa: B006 (read only)
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """An optimizer of optax, by the name that it has there: ``{kind: optax, name: lion, arguments: {b1: 0.95}}``.

    ``theta <- theta + u``, where ``u`` is the update of ``optax.NAME(learning_rate=..., **arguments)`` or
    ``optax.contrib.NAME(...)``.

    Args:
      name: such as adabelief, adafactor, adamw, adan, lamb, lars, lion, nadamw, yogi; of ``optax.contrib``: adopt,
        ademamix, galore, muon, prodigy and others. An unknown name is refused with the nearest one. Static.
      learning_rate: traced.
      arguments: optax's own keyword arguments, without masks. Static; those left out have optax's defaults.
      schedule: as in :func:`sgd`. It sets the step size before each update.
      max_gradient_norm: as in :func:`sgd`.

    Raises:
      ValueError: for a name or an argument that optax does not have or does not accept, and for optimizers that need
        the loss at every update (lbfgs, polyak_sgd, momo, sophia), draw their own noise (noisy_sgd, dpsgd) or act with
        an average of the parameters (schedule_free).

    The step size of cocob, dadapt_adamw, dog, dowg, prodigy and rprop is unknown, because they find it themselves; a
    schedule is then a factor of what optax calls the learning rate (rprop, which reads it once, has none). optax 0.2
    has neither Shampoo nor a Kronecker-factored PSGD; a plug-in may return them as plain optax transformations. Of
    adafactor, galore, novograd and sm3, whose moments have other shapes than the parameters, single units and layers
    cannot be reset.
    """
    factory = factory_of(name)
    check_arguments(name, factory, arguments)
    if name == "rprop" and schedule is not None:
        raise ValueError("schedule has no effect with rprop, which reads the learning rate only once; leave it out")

    def make(rate: Number) -> optax.GradientTransformation:
        return factory(learning_rate=rate, **arguments)

    checked(name, make)
    return rebuilt(name, make, clipped(max_gradient_norm), learning_rate, schedule)


def rebuilt(
    name: str,
    make: Callable[[Number], optax.GradientTransformation],
    clip: optax.GradientTransformation,
    learning_rate: Number,
    schedule: Callable[[], Any] | None,
) -> Optimizer:
    """The optimizer that ``make`` builds from the step size, anew for each update, so that it may change or be traced.

    The state is that of ``make``: it does not depend on the step size.
    """
    rate = step_size(learning_rate, schedule)
    mark = Scheduled() if schedule is not None else ()

    def rule(count: Array) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(make(rate(count)))

    def init(params: Params) -> Descent:
        none = jnp.zeros([], jnp.int32)
        return Descent(none, (clip.init(params), rule(none).init(params)), mark)

    def update(gradients: Params, state: Descent, params: Params = None, **extra: Any) -> tuple[Params, Descent]:
        bounded, inner = state.direction
        gradients, bounded = clip.update(gradients, bounded, params)
        updates, inner = rule(state.done).update(gradients, inner, params, **extra)
        return updates, Descent(optax.safe_increment(state.done), (bounded, inner), mark)

    unknown_rate: Any = UnknownStepSize(name)
    known_rate = lambda state: rate(state.done)  # noqa: E731
    return Optimizer(init, update, unknown_rate if name in SELF_TUNED else known_rate)
