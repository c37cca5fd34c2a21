"""A plug-in: gradient noise, and a monitor of the gradient's size."""

from plasticity_noise.methods import gradient_noise
from plasticity_noise.monitors import gradient_snr

__all__ = ["gradient_noise", "gradient_snr"]
