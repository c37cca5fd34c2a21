"""Recurrent cells. Every kernel is a module of its own, and the units are the last axis of every array of the carry."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity.core.types import Array
from plasticity.networks.activations import Choice, chosen
from plasticity.networks.layers import INITIALISERS, parameter
from plasticity.networks.nonlinearity import OWN, checked_initial


class Parts(NamedTuple):
    """The modules of a cell: kernels that read the input, kernels that read its units, and all that write its units."""

    inputs: tuple[str, ...]
    recurrent: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def writers(self) -> tuple[str, ...]:
        return (*self.inputs, *self.recurrent, *self.others)


PARTS: Mapping[str, Parts] = {
    "gru": Parts(("input_reset", "input_update", "input_new"), ("state_reset", "state_update", "state_new")),
    "lstm": Parts(
        ("input_in", "input_forget", "input_cell", "input_out"),
        ("state_in", "state_forget", "state_cell", "state_out"),
    ),
    "rtu": Parts(("input_real", "input_imaginary"), (), ("decay",)),
}


class Linear(nn.Module):
    """``x @ kernel``, with a bias if ``bias``."""

    units: int
    initialiser: str
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        z = x @ parameter(self, "kernel", INITIALISERS[self.initialiser], (x.shape[-1], self.units))
        return z + parameter(self, "bias", nn.initializers.zeros, (self.units,)) if self.bias else z


class GRU(nn.Module):
    """Gated recurrent unit.

    ``r = s(W_ir x + b_ir + W_hr h)``, ``z = s(W_iz x + b_iz + W_hz h)``,
    ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h <- (1 - z) n + z h``.

    Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation", in
    the form of Chung et al. 2014 and cuDNN (the reset gate acts on ``W_hn h``). Input kernels are LeCun normal, state
    kernels orthogonal.
    """

    units: int

    def setup(self) -> None:
        self.input_reset, self.input_update, self.input_new = (Linear(self.units, "lecun") for _ in range(3))
        self.state_reset, self.state_update = (Orthogonal(self.units, bias=False) for _ in range(2))
        self.state_new = Orthogonal(self.units, bias=True)

    def inputs(self, x: Array) -> tuple[Array, ...]:
        """What the input adds to the gates: the same for every step, so all steps of a sequence at once."""
        return self.input_reset(x), self.input_update(x), self.input_new(x)

    def step(self, carry: Array, drive: tuple[Array, ...]) -> tuple[Array, Array]:
        reset, update = jax.nn.sigmoid(drive[0] + self.state_reset(carry)), drive[1] + self.state_update(carry)
        new = jnp.tanh(drive[2] + reset * self.state_new(carry))
        update = jax.nn.sigmoid(update)
        carry = (1 - update) * new + update * carry
        return carry, carry

    def __call__(self, carry: Array, x: Array) -> tuple[Array, Array]:
        return self.step(carry, self.inputs(x))


class Orthogonal(nn.Module):
    """``h @ kernel`` with an orthogonal initial kernel, and a bias if ``bias``."""

    units: int
    bias: bool

    @nn.compact
    def __call__(self, h: Array) -> Array:
        def init(*args: Any) -> Array:
            return INITIALISERS["orthogonal"](*args) / math.sqrt(2.0)

        z = h @ parameter(self, "kernel", init, (h.shape[-1], self.units))
        return z + parameter(self, "bias", nn.initializers.zeros, (self.units,)) if self.bias else z


class LSTM(nn.Module):
    """Long short-term memory.

    ``i, f, o = s(W_i x + b + W_h h)`` each, ``g = tanh(W_ig x + b + W_hg h)``, ``c <- f c + i g``,
    ``h <- o tanh(c)``.

    Hochreiter, Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers et al. 2000; its bias starts at
    ``forget_bias``. Kernels as in :class:`GRU`.
    """

    units: int
    forget_bias: float = 1.0

    def setup(self) -> None:
        self.input_in, self.input_forget, self.input_cell, self.input_out = (
            Linear(self.units, "lecun") for _ in range(4)
        )
        self.state_in, self.state_forget, self.state_cell, self.state_out = (
            Orthogonal(self.units, bias=False) for _ in range(4)
        )

    def inputs(self, x: Array) -> tuple[Array, ...]:
        """As in :class:`GRU`."""
        return self.input_in(x), self.input_forget(x), self.input_cell(x), self.input_out(x)

    def step(self, carry: tuple[Array, Array], drive: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        cell, hidden = carry
        enter, forget = drive[0] + self.state_in(hidden), drive[1] + self.state_forget(hidden)
        new, leave = drive[2] + self.state_cell(hidden), drive[3] + self.state_out(hidden)
        cell = jax.nn.sigmoid(forget + self.forget_bias) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (cell, hidden), hidden

    def __call__(self, carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        return self.step(carry, self.inputs(x))


class Traces(NamedTuple):
    """Derivatives of an RTU's state (real, imaginary part) with respect to its parameters, one learner, per env."""

    decay: tuple[Array, Array]  # [B, units] each, of `nu`
    angle: tuple[Array, Array]  # [B, units] each, of `theta`
    real: tuple[Array, Array]  # [B, inputs, units] each, of the kernel of `input_real`
    imaginary: tuple[Array, Array]  # [B, inputs, units] each, of the kernel of `input_imaginary`


class Memory(NamedTuple):
    """The carry of an RTU."""

    state: tuple[Array, Array]  # [B, units] each
    traces: Traces | tuple[()]  # () if gradients are computed through time


def rotated(pair: tuple[Array, Array], cosine: Array, sine: Array) -> tuple[Array, Array]:
    """A complex number times ``cosine + i sine``."""
    real, imaginary = pair
    return cosine * real - sine * imaginary, cosine * imaginary + sine * real


class Decay(nn.Module):
    """``nu`` and ``theta`` of an RTU, so that ``r^2`` is uniform in (0, 1) and the angle in (0, 2 pi)."""

    units: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        def nu(key: Array) -> Array:
            return jnp.log(-0.5 * jnp.log(jax.random.uniform(key, (self.units,), minval=1e-6, maxval=1.0 - 1e-6)))

        def theta(key: Array) -> Array:
            return jnp.log(2 * math.pi * jax.random.uniform(key, (self.units,), minval=1e-6, maxval=1.0))

        return parameter(self, "nu", nu), parameter(self, "theta", theta)


class RTU(nn.Module):
    """Recurrent trace units: a linear recurrence of complex numbers, one per unit.

    With ``r = exp(-exp(nu))``, ``a = exp(theta)`` and ``m = sqrt(1 - r^2)``:

        ``c <- r (cos a + i sin a) c + m (W_1 x + i W_2 x)``, output ``[f(Re c), f(Im c)]``.

    With ``nonlinear``, ``f`` is applied to the state itself: ``c <- f(...)``, output ``[Re c, Im c]``.

    A unit's state depends on its own parameters only, so the derivatives of the state with respect to all parameters
    can be carried along (``Traces``) at the cost of the parameters. With ``gradient`` "rtrl" the cell does so: the
    gradient of any function of the output is that through all earlier steps of the episode, without storing them
    (real-time recurrent learning). Earlier steps contribute derivatives under the parameters they were taken with.
    The gradient with respect to the input is that of the current step. With "bptt" no traces are kept, and the gradient
    is that through the steps of a sequence.

    Elelimy, White, Bowling, White 2024, "Real-Time Recurrent Learning using Trace Units in Reinforcement Learning".
    """

    units: int
    activation: Choice = "relu"
    nonlinear: bool = False
    gradient: str = "rtrl"

    def setup(self) -> None:
        kind = chosen(self.activation)
        self.own = {} if kind.initial is None else parameter(self, OWN, checked_initial(kind), self.units)
        self.decay = Decay(self.units)
        self.input_real, self.input_imaginary = Linear(self.units, "lecun", False), Linear(self.units, "lecun", False)

    def inputs(self, x: Array) -> tuple[Array, ...]:
        """As in :class:`GRU`, and the input itself, which the traces need."""
        return self.input_real(x), self.input_imaginary(x), x

    def __call__(self, carry: Memory, x: Array) -> tuple[Memory, Array]:
        return self.step(carry, self.inputs(x))

    def step(self, carry: Memory, drive: tuple[Array, ...]) -> tuple[Memory, Array]:
        (nu, theta), x = self.decay(), drive[2]
        kernels = [module.variables["params"]["kernel"] for module in (self.input_real, self.input_imaginary)]
        function = partial(chosen(self.activation).function, self.own)
        decay, angle = jnp.exp(-jnp.exp(nu)), jnp.exp(theta)
        cosine, sine, size = decay * jnp.cos(angle), decay * jnp.sin(angle), jnp.sqrt(1 - decay**2) + 1e-8
        online = self.gradient == "rtrl"
        before = jax.lax.stop_gradient(carry.state) if online else carry.state
        state = [old + size * new for old, new in zip(rotated(before, cosine, sine), drive[:2], strict=True)]
        traces: Any = ()
        if online:
            assert isinstance(carry.traces, Traces)
            turned = Traces._make(rotated(pair, cosine, sine) for pair in carry.traces)
            state = [z + past for z, past in zip(state, earlier(turned, nu, theta, kernels), strict=True)]
            traces = extended(turned, before, drive, x, nu, theta, cosine, sine, size)
        if self.nonlinear:
            slopes = [jax.jvp(function, (z,), (jnp.ones_like(z),))[1] for z in state]
            state = [function(z) for z in state]
            if online:
                traces = Traces._make((scaled(slopes[0], a), scaled(slopes[1], b)) for a, b in traces)
        memory = Memory((state[0], state[1]), traces)
        output = jnp.concatenate(state if self.nonlinear else [function(z) for z in state], axis=-1)
        return (jax.lax.stop_gradient(memory) if online else memory), output


def scaled(slope: Array, trace: Array) -> Array:
    """A trace ``[B, units]`` or ``[B, inputs, units]`` times ``slope[B, units]``."""
    return trace * (slope if trace.ndim == slope.ndim else slope[:, None])


def earlier(turned: Traces, nu: Array, theta: Array, kernels: list[Array]) -> tuple[Array, Array]:
    """Zero, with the derivatives ``turned`` with respect to the parameters: what earlier steps add to the gradient."""
    turned = jax.lax.stop_gradient(turned)
    shift = [p - jax.lax.stop_gradient(p) for p in (nu, theta, *kernels)]

    def part(i: int) -> Array:
        vectors = turned.decay[i] * shift[0] + turned.angle[i] * shift[1]
        real = jnp.einsum("bdn,dn->bn", turned.real[i], shift[2])
        return vectors + real + jnp.einsum("bdn,dn->bn", turned.imaginary[i], shift[3])

    return part(0), part(1)


def extended(
    turned: Traces,
    before: tuple[Array, Array],
    drive: tuple[Array, ...],
    x: Array,
    nu: Array,
    theta: Array,
    cosine: Array,
    sine: Array,
    size: Array,
) -> Traces:
    """The traces after a step: the earlier ones, rotated, plus the derivatives of the step itself."""
    rate, angle = jnp.exp(nu), jnp.exp(theta)
    growth = rate * jnp.exp(-2 * rate) / size  # of `size` with nu
    by_decay = rotated(before, -rate * cosine, -rate * sine)
    by_angle = rotated(before, -angle * sine, angle * cosine)
    inputs = x[:, :, None] * size
    return Traces(
        decay=(turned.decay[0] + by_decay[0] + growth * drive[0], turned.decay[1] + by_decay[1] + growth * drive[1]),
        angle=(turned.angle[0] + by_angle[0], turned.angle[1] + by_angle[1]),
        real=(turned.real[0] + inputs, turned.real[1]),
        imaginary=(turned.imaginary[0], turned.imaginary[1] + inputs),
    )


class Cell(NamedTuple):
    """A cell's module and the carry at the start of an episode."""

    module: Callable[..., nn.Module]  # units, **settings
    initial: Callable[..., Any]  # batch, units, inputs, **settings


def zeros(batch: int, units: int, inputs: int) -> Array:
    del inputs
    return jnp.zeros((batch, units))


def two_zeros(batch: int, units: int, inputs: int, forget_bias: float = 1.0) -> tuple[Array, Array]:
    del forget_bias
    return zeros(batch, units, inputs), zeros(batch, units, inputs)


def empty_memory(
    batch: int,
    units: int,
    inputs: int,
    activation: Choice = "relu",
    nonlinear: bool = False,
    gradient: str = "rtrl",
) -> Memory:
    del activation, nonlinear
    one, row = jnp.zeros((batch, units)), jnp.zeros((batch, inputs, units))
    traces = Traces((one, one), (one, one), (row, row), (row, row)) if gradient == "rtrl" else ()
    return Memory((one, one), traces)


CELLS: Mapping[str, Cell] = {
    "gru": Cell(GRU, zeros),
    "lstm": Cell(LSTM, two_zeros),
    "rtu": Cell(RTU, empty_memory),
}
