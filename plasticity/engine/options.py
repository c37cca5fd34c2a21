"""Options of the compiler."""

import functools
from collections.abc import Mapping

import jax

# On a CPU, these make XLA compile about three times as fast, into slower code.
QUICK: Mapping[str, bool | int] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


@functools.cache
def quick(platform: str) -> dict[str, bool | int]:
    """Options for a function that is called rarely and takes longer to compile than to run, such as a task switch.

    Options that this version of XLA does not know are left out.
    """
    if platform != "cpu":
        return {}
    if _known(QUICK):
        return dict(QUICK)
    return {name: value for name, value in QUICK.items() if _known({name: value})}


def _known(options: Mapping[str, bool | int]) -> bool:
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0).compile()
    except Exception:  # what it raises is not documented
        return False
    return True
