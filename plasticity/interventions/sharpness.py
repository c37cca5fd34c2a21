"""Learning from the gradient at another point than the parameters."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from plasticity.config.fields import NonNegative, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Context, ModulePath, Params, State
from plasticity.interventions.base import Intervention

Norm = Literal["euclidean", "maximum"]
ADDED = ("bias", "offset")  # the names of parameters that are added, not multiplied


def steepest(gradients: Params, norm: Norm) -> Params:
    """The point of the unit ball of a norm at which the gradients' linear function is largest; 0 for no gradient."""
    if norm == "maximum":
        return jax.tree.map(jnp.sign, gradients)
    length = trees.norm(gradients)
    return jax.tree.map(lambda g: jnp.where(length > 0, g / jnp.where(length > 0, length, 1.0), 0.0), gradients)


@metadata(
    paper="Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization",
    checked="the perturbation by hand, and an update with JAX's gradient at the perturbed point",
    neutral={"rho": 0.0},
    only_with={"eta": {"adaptive": (True,)}},
    note="costs a second gradient of the batch",
)
def sam(
    *, rho: NonNegative = 0.05, norm: Norm = "euclidean", adaptive: bool = False, eta: NonNegative = 0.01
) -> Intervention:
    """SAM: descend along the gradient at the worst point nearby, on the same batch, so that flat minima are found.

    With ``g`` the gradient of loss and penalties at ``theta``, the optimizer gets their gradient at ``theta + e``,
    where ``e = rho g / |g|`` maximises the loss to first order among all ``|e| <= rho``. With ``adaptive`` (ASAM, Kwon
    et al. 2021, "ASAM: Adaptive Sharpness-Aware Minimization"), ``e = rho T^2 g / |T g|`` with ``T = |theta| + eta``:
    the neighbourhood scales with the parameters. ``T = 1`` for biases and offsets.

    Args:
        rho: the radius (traced). The paper's default; with ``adaptive``, ASAM's code has 0.5.
        norm: of the radius (static). "euclidean", over all parameters together; "maximum", of the largest entry:
            ``e = rho sign(g)``, with ``adaptive`` ``e = rho T sign(g)``.
        adaptive: static.
        eta: traced; that of ASAM's code.

    Raises:
        ValueError: for an unknown norm.

    As in the paper's code, penalties are part of what is perturbed. Metrics and what other interventions see of the
    forward pass belong to ``theta`` itself. In an actor-critic the norm is over all networks; `modules` restricts it.
    Random numbers of the loss are the same for both gradients.
    """
    check("norm", norm, get_args(Norm))

    def scale_of(path: ModulePath, theta: Array) -> Array:
        return jnp.ones_like(theta) if path[-1] in ADDED else jnp.abs(theta) + eta

    def point(state: State, params: Params, gradients: Params, context: Context) -> Params:
        del state, context
        if not adaptive:
            return jax.tree.map(lambda x, e: x + rho * e, params, steepest(gradients, norm))
        scale = trees.map_with_path(scale_of, params)
        direction = steepest(jax.tree.map(jnp.multiply, scale, gradients), norm)
        return jax.tree.map(lambda x, t, e: x + rho * t * e, params, scale, direction)

    return Intervention(point=point)
