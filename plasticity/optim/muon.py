"""Muon: momentum whose singular values are brought near 1."""

from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import BelowOne, Few, Member, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check, unknown
from plasticity.core.types import Array, ModulePath, Optimizer, Params
from plasticity.optim.descent import Descent, Scheduled, clipped, step_size

Scale = Literal["shape", "rms"]
COEFFICIENTS = (3.4445, -4.775, 2.0315)
RMS = 0.2  # of an update with scale "rms": that of Adam's updates, as measured by Liu et al.


class Moments(NamedTuple):
    """The slots of :func:`muon`."""

    clip: optax.OptState
    mu: Params
    nu: Params  # of the parameters that Adam updates; ``optax.MaskedNode()`` for the others


def orthogonalised(matrix: Array, steps: int, coefficients: tuple[float, ...] = COEFFICIENTS) -> Array:
    """The matrix with all its singular values near 1, by the Newton-Schulz iteration.

    ``X <- X / (|X|_F + 1e-7)``, then ``steps`` times ``X <- a X + b (X X^T) X + c (X X^T)^2 X``: each singular value
    ``s`` becomes ``a s + b s^3 + c s^5``. With the default coefficients, five steps take all values above about 0.002
    into [0.68, 1.21], not to 1.

    Args:
      matrix: float32[m, n].
      steps: static.
      coefficients: a, b, c. Static.
    """
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (jnp.linalg.norm(wide) + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def scaled_direction(momentum: Array, steps: int, coefficients: tuple[float, ...], scale: Scale) -> Array:
    """The orthogonalised momentum of a kernel, as a matrix of inputs by outputs, times the factor for its shape."""
    matrix = momentum.reshape(-1, momentum.shape[-1])
    inputs, outputs = matrix.shape
    factor = max(1.0, outputs / inputs) ** 0.5 if scale == "shape" else RMS * max(inputs, outputs) ** 0.5
    return factor * orthogonalised(matrix, steps, coefficients).reshape(momentum.shape)


@metadata(
    paper="Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks",
    checked="a loop on NumPy's singular values, and `optax.contrib.muon` without Nesterov's term",
    note="the defaults are those of the author's code, which computes the iteration in bfloat16",
)
def muon(
    *,
    learning_rate: NonNegative = 0.02,
    momentum: BelowOne = 0.95,
    nesterov: bool = True,
    steps: Few = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    scale: Scale = "shape",
    adam_learning_rate: NonNegative = 3e-4,
    adam_modules: tuple[str, ...] = (),
    b1: BelowOne = 0.9,
    b2: BelowOne = 0.95,
    eps: Positive = 1e-10,
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """Muon: steps along the momentum of each kernel with all singular values near 1; other parameters by Adam.

    For a kernel, ``m <- momentum m + (1 - momentum) g``, ``u = (1 - momentum) g + momentum m`` (without ``nesterov``,
    ``u = m``), and ``theta <- theta - learning_rate f O(u)``, with ``O`` the Newton-Schulz iteration, which for the
    singular value decomposition ``U S V^T`` of ``u`` gives about ``U V^T``. A convolution's kernel ``[h, w, in, out]``
    is a matrix of ``h w in`` inputs and ``out`` outputs. Parameters with fewer than two axes follow Adam.

    Args:
      learning_rate: for kernels. Traced.
      momentum: traced.
      nesterov: static.
      steps: of the iteration, which ends at ``s <- a s + b s^3 + c s^5`` for each singular value. Static.
      coefficients: a, b, c. Static.
      scale: the factor ``f`` of a kernel with ``in`` inputs and ``out`` outputs. "shape": ``sqrt(max(1, out / in))``.
        "rms": ``0.2 sqrt(max(in, out))``, so that steps are about as long as Adam's (Liu et al. 2025, "Muon is Scalable
        for LLM Training"). Static.
      adam_learning_rate: of the parameters that Adam updates. Traced.
      adam_modules: modules whose kernels Adam updates too, by any name on their path. The author recommends it for the
        first and the last layer, which an optimizer cannot recognise by itself. Static.
      b1, b2, eps: of Adam, as in :func:`adam`. Traced.
      schedule: a factor of both step sizes, as in :func:`sgd`.
      max_gradient_norm: a bound on the norm of all gradients, as in :func:`sgd`.

    Raises:
      ValueError: for an unknown ``scale`` and, while tracing, for an unknown module.

    The step size that is reported is ``learning_rate``. The author's code gives a convolution the factor 1 and adds
    weight decay (0.01 per learning rate in its example): add the intervention `weight_decay`.
    """
    check("scale", scale, get_args(Scale))
    factor, clip = step_size(1.0, schedule), clipped(max_gradient_norm)
    mark = Scheduled() if schedule is not None else ()

    def is_matrix(path: ModulePath, x: Any) -> bool:
        return x.ndim >= 2 and not set(path) & set(adam_modules)

    def init(params: Params) -> Descent:
        check_modules(adam_modules, params)
        nu = trees.map_with_path(
            lambda path, x: optax.MaskedNode() if is_matrix(path, x) else jnp.zeros_like(x), params
        )
        return Descent(
            jnp.zeros([], jnp.int32), Moments(clip.init(params), jax.tree.map(jnp.zeros_like, params), nu), mark
        )

    def update(gradients: Params, state: Descent, params: Params = None, **extra: Any) -> tuple[Params, Descent]:
        del extra
        gradients, bounded = clip.update(gradients, state.direction.clip, params)
        count = optax.safe_increment(state.done)

        def first(path: ModulePath, g: Array, m: Array) -> Array:
            decay = momentum if is_matrix(path, g) else b1
            return decay * m + (1 - decay) * g

        def second(g: Array, v: Any) -> Any:
            return v if isinstance(v, optax.MaskedNode) else b2 * v + (1 - b2) * jnp.square(g)

        def step(path: ModulePath, g: Array, m: Array, v: Any) -> Array:
            if is_matrix(path, g):
                u = (1 - momentum) * g + momentum * m if nesterov else m
                return -learning_rate * factor(state.done) * scaled_direction(u, steps, coefficients, scale)
            unbiased = [x / (1 - jnp.asarray(b, jnp.float32) ** count) for x, b in ((m, b1), (v, b2))]
            return -adam_learning_rate * factor(state.done) * unbiased[0] / (jnp.sqrt(unbiased[1]) + eps)

        mu = trees.map_with_path(first, gradients, state.direction.mu)
        nu = jax.tree.map(second, gradients, state.direction.nu)
        updates = trees.map_with_path(step, gradients, mu, nu)
        return updates, Descent(count, Moments(bounded, mu, nu), mark)

    return Optimizer(init, update, lambda state: learning_rate * factor(state.done))


def check_modules(names: tuple[str, ...], params: Params) -> None:
    """Raise a ``ValueError`` if one of the names is on no path of the parameters (optax's placeholder has none)."""
    known = {name for path in trees.paths(params) for name in path[:-1]}
    for name in names:
        if known and name not in known:
            raise ValueError(f"adam_modules: {unknown(f'module `{name}`', name, known)}")
