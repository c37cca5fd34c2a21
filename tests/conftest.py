"""Two CPU devices in every test run, so that sharded programs are tested on any machine; programs compiled once.

Many tests build the same tiny programs anew. JAX's own cache in ``.jax_cache`` keeps what XLA made of them: tracing
still happens (and is counted by tests), the several seconds of XLA's work only once. Deleting the folder is harmless.
"""

import os
import sys
from pathlib import Path

import jax

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.append(str(CHECKOUT))  # `pytest` finds agents and envs as `python -m pytest` does; tests/ has folders so named

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CHECKOUT / ".jax_cache"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
