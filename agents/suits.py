"""Whether a stream suits an agent that acts."""

from plasticity.core.types import StreamSpec


def check_acting(name: str, spec: StreamSpec, *, discrete: bool = False, one_env: bool = False) -> None:
    """``ValueError`` where the stream does not suit an agent that acts and is rewarded.

    Args:
      name: the agent's.
      spec: the stream's.
      discrete: whether the agent chooses among discrete actions only.
      one_env: whether it learns from one environment, step by step.
    """
    if not hasattr(spec.observation, "shape"):
        found = "is supervised"
    elif discrete and not spec.discrete:
        found = "has continuous actions"
    elif one_env and spec.envs != 1:
        found = f"has {spec.envs} envs"
    else:
        return
    wanted = f"{'one env, ' * one_env}{'discrete ' * discrete}actions and rewards"
    raise ValueError(f"agent.kind: {name} is not allowed; it needs a stream with {wanted}; this one {found}")
