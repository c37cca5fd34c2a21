"""Two CPU devices in every test run, so that sharded programs are tested on any machine."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
