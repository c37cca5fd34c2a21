"""Stream TD(lambda): prediction of values from each step once."""

from collections.abc import Callable
from typing import Annotated, Any

from plasticity.agents.base import AgentCore, assemble
from plasticity.agents.choices import NOW, Memory
from plasticity.agents.normalise import NEEDS, Normalise, Preprocessor, Share, preprocessing
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch
from plasticity.agents.stream_ac import WIDER_NETWORK
from plasticity.agents.stream_checks import check_predicting
from plasticity.agents.streaming import Rule, initial_memory, never, streaming_agent, traced_update
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.agents.value_based import Losses, Policy, action_values, error_loss, value_outputs
from plasticity.config.fields import Fraction, Member, NonNegative, metadata
from plasticity.core.schedules import Number
from plasticity.core.types import Agent, AgentState, Array, Clock, Key, Params, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import eligible


def of_state(values: Array, action: Array) -> Array:
    """The value of each state, ``[B, 1] -> [B]``, whatever was predicted."""
    del action
    return values[:, 0]


def value_of_next(values: Array, memory: Memory) -> Array:
    del memory
    return values[0]


TD = Rule(value_of_next, never, NOW, of_state)


def one_step_losses(body: AgentCore, clip: Number) -> Losses:
    """The Huber loss (``clip`` bounds its gradient) of ``r + discount d v(s') - v(s)``."""

    def losses(params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        values, activations = body.network.forward(params, batch.observation)
        following = body.network.forward(held, batch.next_observation)[0][:, 0]
        return error_loss(batch.reward + batch.discount * following - values[:, 0], clip), activations

    return losses


def predicted(values: Callable[[Params, Any], Array]) -> Policy:
    """The values, which are the actions."""

    def policy(key: Key, params: Params, seen: Any, epsilon: Array) -> Array:
        del key, epsilon
        return values(params, seen)

    return policy


def unscaled(agent: Agent, preprocessor: Preprocessor) -> Agent:
    """The agent, whose predictions are in units of the stream's rewards."""

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        return preprocessor.scale(state.rest) * agent.act(key, state, observation, clock)

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        return preprocessor.scale(state.rest) * agent.play(key, state, observation, epsilon)

    return agent._replace(act=act, play=play)


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand; the true values of a random walk",
    only_with=NEEDS,
)
def stream_td(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = WIDER_NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = "obgd",
    trace_decay: Fraction = 0.8,
    error_clip: NonNegative = 0.0,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """Stream TD(lambda): prediction of values, on a stream that asks for them, from each step once.

    ``delta = r + discount d v(s') - v(s)``, ``z <- discount trace_decay z + grad v(s)``, both computed before the
    update ``theta <- theta + alpha delta z``. The trace is reset after the update at terminations and truncations. The
    stream gives the discount, because it defines the values to be predicted (``value_prediction``).

    With ``scale_rewards`` the network learns the values of scaled rewards; its prediction times the current scale is
    the action. Other settings and errors are those of ``stream_q``. The network's hidden layers and the numbers are
    those of the paper's code, whose observations are also traces of the raw ones.

    Args:
      spec: the stream.
      intervention: changes network, optimizer and updates.
      network: with one output.
      optimizer: with a trace in front of it.
      trace_decay: lambda. Traced.
      error_clip: ``delta`` is clipped to +- this; 0: not clipped. Traced.
      normalise: see ``stream_q``, as for the rest.
      normalise_rate: of "exponential".
      scale_rewards: whether rewards are scaled.
      truncation: whether a truncated episode bootstraps.

    Returns:
      The agent of one lane.

    Raises:
      ValueError: a stream that does not ask for predictions of values, or with several envs.

    Reference: Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """
    discount = check_predicting("stream_td", spec)
    check_truncation(truncation)
    preprocessor = preprocessing(
        spec, normalise=normalise, rate=normalise_rate, scale_rewards=scale_rewards, discount=discount
    )
    described = network(preprocessor.observation, 1)
    rest = initial_memory(preprocessor, scheduled=False)
    body = assemble(described, optimizer(), intervention, rest=rest, trace=eligible, envs=1)
    values = action_values(body)

    def make(core: AgentCore) -> Agent:
        losses = one_step_losses(core, error_clip)
        update = traced_update(core, TD, losses, discount, trace_decay, error_clip)
        meaning: Any = "prediction"
        agent = streaming_agent(
            core, preprocessor, predicted(values), None, update, losses, values, meaning, discount, truncation
        )
        return unscaled(agent, preprocessor)

    return complete(spec, body, value_outputs(values), make)
