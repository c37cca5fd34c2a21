"""Every method that keeps plasticity: one factory each, known to configs by the name here."""

from collections.abc import Callable, Mapping

from plasticity.interventions.architecture import layer_norm, rms_norm
from plasticity.interventions.base import Intervention
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.projection import nap
from plasticity.interventions.resets import optimizer_reset, reset

INTERVENTIONS: Mapping[str, Callable[..., Intervention]] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "weight_decay": weight_decay,
    "nap": nap,
    "reset": reset,
    "optimizer_reset": optimizer_reset,
}
