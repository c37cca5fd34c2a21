"""The devices that runs use."""

import contextlib
import functools
import warnings

import jax

from plasticity.core.cores import cores


@functools.cache
def devices() -> tuple[jax.Device, ...]:
    """The devices to run on. On a CPU, one XLA device per core: a speed-up by the number of cores.

    Must be called before anything else uses JAX's devices. Later calls use the existing devices and warn if there is
    one device for several cores.
    """
    count = cores()
    with contextlib.suppress(RuntimeError):  # the devices already exist
        jax.config.update("jax_num_cpu_devices", count)
    found = tuple(jax.devices())
    if found[0].platform == "cpu" and len(found) == 1 < count:
        slower = f"JAX is already initialised: runs have one device for {count} cores and are slower"
        warnings.warn(f"{slower}; call plasticity.runs.launch.devices() first", stacklevel=2)
    return found
