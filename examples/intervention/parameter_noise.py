"""An intervention: noise on every parameter after every update."""

import jax

from plasticity.config.fields import NonNegative, metadata
from plasticity.core.types import Context, Key, Learner, State
from plasticity.interventions.base import Intervention


@metadata(neutral={"scale": 0.0})
def parameter_noise(*, scale: NonNegative = 1e-3) -> Intervention:
    """Gaussian noise added to every parameter after every update.

    ``theta <- theta + scale n``, ``n ~ N(0, 1)``. ``scale`` is traced: a sweep over it is one compiled program.
    """

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del context
        leaves, tree = jax.tree.flatten(learner.params)
        noisy = [x + scale * jax.random.normal(jax.random.fold_in(key, i), x.shape) for i, x in enumerate(leaves)]
        return state, learner._replace(params=jax.tree.unflatten(tree, noisy))

    return Intervention(step=step)
