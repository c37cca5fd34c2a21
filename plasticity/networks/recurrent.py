"""Networks with memory: a recurrent cell behind any torso."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from plasticity.config.fields import Member, Size, Widths
from plasticity.networks.activations import chosen
from plasticity.networks.graph import copied, layer
from plasticity.networks.operations import Recurrent
from plasticity.networks.spec import AnActivation, NetworkSpec, end_of, trunk

TORSO = {"kind": "mlp", "widths": [64]}
PREFIX = "torso_"


def behind(torso: NetworkSpec, cell: Recurrent, widths: Widths) -> NetworkSpec:
    """The torso without its output layer, then the cell and dense layers of ``widths``."""
    nodes, last = copied(trunk(torso), PREFIX), end_of(torso)
    body = (*nodes, layer("memory", cell, PREFIX * bool(last) + last))
    return replace(torso, body=body, convolutions=(), widths=widths)


def gru(
    observation: Any,
    outputs: int,
    *,
    torso: Annotated[Any, Member("networks")] = TORSO,
    units: Size = 64,
    widths: Widths = (),
) -> NetworkSpec:
    """A gated recurrent unit of ``units`` units behind any torso; all settings static.

    ``torso`` is any network, without its output layer; ``widths`` are dense layers after the cell. Non-linearity,
    normalisation and initialiser of all dense layers are the torso's; the cell keeps its own (``networks.cells.GRU``).

    Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation".
    """
    return behind(torso(observation, outputs), Recurrent("gru", units), widths)


def lstm(
    observation: Any,
    outputs: int,
    *,
    torso: Annotated[Any, Member("networks")] = TORSO,
    units: Size = 64,
    forget_bias: float = 1.0,
    widths: Widths = (),
) -> NetworkSpec:
    """Long short-term memory of ``units`` units behind any torso; all settings static.

    ``forget_bias`` is added to the forget gate's pre-activation. For the other settings see ``gru``.

    Hochreiter, Schmidhuber 1997, "Long Short-Term Memory".
    """
    cell = Recurrent("lstm", units, (("forget_bias", forget_bias),))
    return behind(torso(observation, outputs), cell, widths)


def rtu(
    observation: Any,
    outputs: int,
    *,
    torso: Annotated[Any, Member("networks")] = TORSO,
    units: Size = 64,
    activation: AnActivation = "relu",
    nonlinear: bool = False,
    gradient: Literal["rtrl", "bptt"] = "rtrl",
    widths: Widths = (64,),
) -> NetworkSpec:
    """Recurrent trace units behind any torso: exact gradients in real time; all settings static.

    A diagonal recurrence of ``units`` complex numbers, with ``2 units`` outputs (``networks.cells.RTU``). With
    ``gradient`` "rtrl" the cell carries the derivatives of its state with respect to its parameters, so that an agent
    that learns from one step at a time gets the gradient through the whole episode; with "bptt" the gradient is that
    through the steps of a sequence. ``activation`` is that of the cell's output alone. ``nonlinear`` applies it to the
    state itself, and needs one without parameters and with one feature for each unit (else ``ValueError``). For the
    other settings see ``gru``.

    Elelimy, White, Bowling, White 2024, "Real-Time Recurrent Learning using Trace Units in Reinforcement Learning". Its
    code omits the factor ``exp(theta)`` from the derivative with respect to ``theta``; here it is exact.
    """
    kind = chosen(activation)
    if nonlinear and (kind.copies > 1 or kind.initial is not None):
        raise ValueError(
            "nonlinear: true is not allowed with this activation; it needs one without parameters and with one feature "
            "for each unit"
        )
    settings = (("activation", kind), ("nonlinear", nonlinear), ("gradient", gradient))
    return behind(torso(observation, outputs), Recurrent("rtu", units, settings), widths)
