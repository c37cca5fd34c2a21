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
    reason, remedy = "JAX is already initialised", "call plasticity.runs.launch.devices() first"
    if hasattr(jax, "shard_map"):
        with contextlib.suppress(RuntimeError):  # the devices already exist
            jax.config.update("jax_num_cpu_devices", count)
    else:  # the last version for Intel Macs is 0.4.38
        reason, remedy = f"JAX {jax.__version__} is old", "a newer version uses all cores"
    found = tuple(jax.devices())
    if found[0].platform == "cpu" and len(found) == 1 < count:
        warnings.warn(f"{reason}: runs have one device for {count} cores and are slower; {remedy}", stacklevel=2)
    return found
