"""Weight decay decoupled from the gradient."""

from typing import Any, Literal

import jax
import optax

from plasticity.config.fields import NonNegative, metadata
from plasticity.core.errors import check
from plasticity.core.types import Array, Optimizer, Params
from plasticity.interventions.base import Intervention
from plasticity.interventions.penalties import check_selected
from plasticity.optim.optimizers import wrap
from plasticity.optim.step_sizes import required_step_size


@metadata(
    paper="Loshchilov, Hutter 2019, Decoupled Weight Decay Regularization",
    checked="one update by hand, and `optax.adamw` along a schedule",
    neutral={"rate": 0.0},
)
def weight_decay(
    *,
    rate: NonNegative = 1e-4,
    per: Literal["update", "learning_rate"] = "update",
    which: Literal["kernels", "all"] = "kernels",
) -> Intervention:
    """Decoupled weight decay, where ``u`` is the optimizer's own update.

    * ``per="update"``: ``theta <- (1 - rate) theta + u``, independent of the step size (the paper's ``lambda``).
    * ``per="learning_rate"``: ``theta <- (1 - learning_rate rate) theta + u``, with the step size of the same update
      (AdamW in PyTorch and optax). For the same decay as above, the rate must be ``1 / learning_rate`` times as large.

    Args:
        rate: traced.
        per: static.
        which: "kernels", the parameters with two or more axes, including the output layer's, or "all" (static). The
            paper decays every parameter (``which="all"``).

    Raises:
        ValueError: for an unknown name, and for ``per="learning_rate"`` with an optimizer that does not report its step
            size, and if no parameter is selected.
    """
    check("per", per, ("update", "learning_rate"))
    check("which", which, ("kernels", "all"))

    def update(
        updates: Params, state: Any, params: Params, *, learning_rate: Array | float = 0.0, **extra: Any
    ) -> tuple[Params, Any]:
        del extra
        check_selected(which, params)
        share = rate * learning_rate if per == "learning_rate" else rate

        def leaf(u: Array, theta: Array) -> Array:
            return u - share * theta if which == "all" or theta.ndim >= 2 else u

        return jax.tree.map(leaf, updates, params), state

    transformation = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    def decayed(optimizer: Optimizer) -> Optimizer:
        if per == "learning_rate":
            required_step_size(optimizer, "weight_decay with per=learning_rate")
        return wrap(optimizer, after=transformation)

    return Intervention(optimizer=decayed)
