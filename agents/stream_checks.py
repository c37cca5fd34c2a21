"""Check that a stream fits an agent that acts."""

from plasticity.core.types import Logged, StreamSpec


def check_acting(name: str, spec: StreamSpec, *, discrete: bool = False, one_env: bool = False) -> None:
    """Check that the stream fits an agent that acts and receives rewards.

    Args:
      name: name of the agent.
      spec: spec of the stream.
      discrete: whether the agent supports discrete actions only.
      one_env: whether the agent learns from a single environment, step by step.

    Raises:
      ValueError: the stream does not fit.
    """
    if isinstance(spec.observation, Logged):
        found = "has recorded transitions"
    elif not hasattr(spec.observation, "shape"):
        found = "is supervised"
    elif spec.prediction is not None:
        found = "asks for predictions of values"
    elif discrete and not spec.discrete:
        found = "has continuous actions"
    elif one_env and spec.envs != 1:
        found = f"has {spec.envs} envs"
    else:
        return
    wanted = f"{'one env, ' * one_env}{'discrete ' * discrete}actions and rewards"
    raise ValueError(f"agent.kind: {name} is not allowed; it needs a stream with {wanted}; this one {found}")


def check_predicting(name: str, spec: StreamSpec) -> float:
    """Check that the stream asks an agent with a single environment for predictions of values.

    Args:
      name: name of the agent.
      spec: spec of the stream.

    Returns:
      The discount of the values.

    Raises:
      ValueError: the stream does not fit.
    """
    if spec.prediction is not None and spec.envs == 1:
        return spec.prediction
    found = "does not" if spec.prediction is None else f"has {spec.envs} envs"
    raise ValueError(
        f"agent.kind: {name} is not allowed; it needs a stream with one env that asks for predictions of values, such "
        f"as value_prediction; this one {found}"
    )


def check_recorded(name: str, spec: StreamSpec, *, discrete: bool = False) -> None:
    """Check that the stream has recorded transitions, for an agent that learns offline.

    Args:
      name: name of the agent.
      spec: spec of the stream.
      discrete: whether the agent supports discrete actions only.

    Raises:
      ValueError: the stream does not fit.
    """
    fits = isinstance(spec.observation, Logged)
    if fits and (spec.discrete or not discrete):
        return
    wanted = f"recorded transitions{', of discrete actions' * discrete}, such as dataset"
    found = "; this one has continuous actions" if fits else ""
    raise ValueError(f"agent.kind: {name} is not allowed; it needs a stream with {wanted}{found}")
