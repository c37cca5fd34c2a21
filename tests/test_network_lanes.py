"""Many lanes in one vmap, and several devices, for every built-in network."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from network_cases import SMALL
from network_table import life

LANES, DEVICES = 64, 8
ROOT = Path(__file__).resolve().parent
SCRIPT = """
import sys
import jax, numpy as np
sys.path[:0] = [{tests!r}, {root!r}]
from network_table import life
name = sys.argv[1]
assert len(jax.devices()) == {devices}
keys = jax.random.split(jax.random.key(0), {devices})
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("lanes",))
spec = jax.sharding.PartitionSpec("lanes")
made = jax.jit(jax.shard_map(jax.vmap(life(name)), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(keys)
alone = jax.jit(jax.vmap(life(name)))(keys[:1])
assert np.isfinite(np.asarray(made.losses)).all()
np.testing.assert_allclose(np.asarray(made.losses)[:1], np.asarray(alone.losses), rtol=1e-3, atol=1e-5)
assert len({{float(x) for x in np.asarray(made.losses)[:, -1]}}) == {devices}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_sixty_four_lanes_in_one_vmap(name):
    keys = jax.random.split(jax.random.key(0), LANES)
    made = jax.jit(jax.vmap(life(name)))(keys)
    assert made.finite.all()
    assert len(np.unique(np.asarray(made.losses[:, -1]))) == LANES


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_eight_devices(name):
    script = SCRIPT.format(tests=str(ROOT), root=str(ROOT.parent), devices=DEVICES)
    # Code optimised as usual: Adam's first steps turn the rounding of gradients that are nearly 0 into whole steps, and
    # the unoptimised code of other tests rounds differently in every program.
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script, name], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
