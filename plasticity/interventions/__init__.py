"""The methods that preserve plasticity, and those that preserve what was learned.

One factory each, available in configs under the names below.
"""

from collections.abc import Callable, Mapping

from plasticity.interventions.anchors import ewc, l2_previous, mas, synaptic_intelligence
from plasticity.interventions.architecture import (
    crelu,
    deep_fourier,
    layer_norm,
    leaky_relu,
    rms_norm,
    smooth_leaky,
    spectral_norm,
    weight_norm,
)
from plasticity.interventions.averages import hare_tortoise
from plasticity.interventions.base import Intervention
from plasticity.interventions.cloning import behavioural_cloning, kickstarting
from plasticity.interventions.continual_backprop import continual_backprop
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.distillation import reset_and_distill
from plasticity.interventions.dormant import redo
from plasticity.interventions.expansion import neuroplastic_expansion
from plasticity.interventions.exploration import old_policy_exploration
from plasticity.interventions.feature_penalties import c_chain, effective_rank, infer, pfo
from plasticity.interventions.firing import self_normalized_resets
from plasticity.interventions.injection import plasticity_injection
from plasticity.interventions.interval_dropout import aid
from plasticity.interventions.isometry import fire
from plasticity.interventions.modulation import modulation
from plasticity.interventions.optimization import random_walk, trac
from plasticity.interventions.packnet import packnet
from plasticity.interventions.penalties import l2, l2_init, parseval, spectral_regularization, wasserstein_init
from plasticity.interventions.perturbation import shrink_perturb, soft_reset
from plasticity.interventions.projection import nap, weight_clip
from plasticity.interventions.recycling import cpr, regrama
from plasticity.interventions.rehearsal import a_gem, clear
from plasticity.interventions.resets import optimizer_reset, reset
from plasticity.interventions.sharpness import sam
from plasticity.interventions.switch_policy import at_switch
from plasticity.interventions.task import task_heads, task_input
from plasticity.interventions.twins import altnet
from plasticity.interventions.utility import pgd, upgd
from plasticity.interventions.weights import selective_weight_reinit

INTERVENTIONS: Mapping[str, Callable[..., Intervention]] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "crelu": crelu,
    "deep_fourier": deep_fourier,
    "leaky_relu": leaky_relu,
    "smooth_leaky": smooth_leaky,
    "aid": aid,
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "plasticity_injection": plasticity_injection,
    "weight_decay": weight_decay,
    "l2": l2,
    "l2_init": l2_init,
    "wasserstein_init": wasserstein_init,
    "spectral_regularization": spectral_regularization,
    "parseval": parseval,
    "pfo": pfo,
    "infer": infer,
    "effective_rank": effective_rank,
    "c_chain": c_chain,
    "nap": nap,
    "weight_clip": weight_clip,
    "reset": reset,
    "optimizer_reset": optimizer_reset,
    "at_switch": at_switch,
    "shrink_perturb": shrink_perturb,
    "soft_reset": soft_reset,
    "fire": fire,
    "altnet": altnet,
    "hare_tortoise": hare_tortoise,
    "upgd": upgd,
    "pgd": pgd,
    "trac": trac,
    "sam": sam,
    "random_walk": random_walk,
    "redo": redo,
    "regrama": regrama,
    "cpr": cpr,
    "self_normalized_resets": self_normalized_resets,
    "continual_backprop": continual_backprop,
    "selective_weight_reinit": selective_weight_reinit,
    "neuroplastic_expansion": neuroplastic_expansion,
    "l2_previous": l2_previous,
    "ewc": ewc,
    "mas": mas,
    "synaptic_intelligence": synaptic_intelligence,
    "packnet": packnet,
    "a_gem": a_gem,
    "clear": clear,
    "behavioural_cloning": behavioural_cloning,
    "kickstarting": kickstarting,
    "reset_and_distill": reset_and_distill,
    "old_policy_exploration": old_policy_exploration,
    "task_input": task_input,
    "task_heads": task_heads,
    "modulation": modulation,
}
