"""Planned memory against real arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from plasticity.engine import memory
from plasticity.engine.lanes import place
from plasticity.engine.memory import readable, size_of
from plasticity.engine.runner import Run
from plasticity.runs import launch

PONG = {"stream": {"kind": "atari", "games": ["Pong"], "frames_per_visit": 400}}


def nbytes(tree) -> int:
    """Of the arrays of a tree on its busiest device."""
    devices: dict = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            devices[shard.device] = devices.get(shard.device, 0) + shard.data.nbytes
    return max(devices.values())


@pytest.mark.filterwarnings("ignore:frames_per_visit. 400 is shorter")
@pytest.mark.parametrize(
    ("changes", "devices", "width"),
    [({}, 2, 1), ({}, 1, 2), ({"seeds": 5}, 2, 2), ({**tiny.DQN, **PONG}, 2, 1)],
)
def test_state_is_what_the_carries_hold(changes, devices, width):
    job = launch.plan(tiny.experiment(**changes)).jobs[0]
    run = Run(job.program, place(len(job.program.seeds), devices=devices, width=width), launch.devices())
    planned = memory.estimate(run)
    run.begin()
    assert planned.state == nbytes(run.carries)
    assert planned.total == planned.state + planned.workspace
    learner = sum(leaf.nbytes for leaf in jax.tree.leaves(run.carries[0].agent.learner)) // devices
    assert planned.workspace > learner
    run.close()


def test_a_plan_says_it_for_every_program():
    planned = launch.plan(tiny.experiment(arms={"a": {"sweep": {"agent.network.widths": [[8], [64]]}}}))
    small, large = planned.memory
    assert small.state < large.state
    described = [each["bytes_per_device"] for each in planned.describe()["programs"]]
    assert described == [each._asdict() for each in planned.memory]


CATCH = {"stream": {"kind": "catch", "change": "none", "tasks": 1, "steps_per_task": 20}}


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 16),  # the monitors' batch
        ({"monitors": []}, 4),  # the minibatch
        ({**tiny.DQN, **CATCH, "monitors": []}, 8),
        ({**tiny.DQN, **CATCH, "monitors": [], "interventions": ["redo"]}, 8),
    ],
)
def test_the_workspace_is_that_of_the_largest_batch(changes, rows):
    """Values before and after the non-linearity of 8 units, in float32."""
    planned = launch.plan(tiny.experiment(**changes))
    (job,), (need,) = planned.jobs, planned.memory
    run = Run(job.program, job.placement, launch.devices())
    learner = size_of(run.carry_shape().agent.learner) // job.placement.devices
    activations = rows * 8 * 2 * 4 * job.placement.width
    assert need.workspace == memory.LEARNER_COPIES * learner + memory.ACTIVATION_COPIES * activations


def test_size_of():
    tree = {"a": jnp.zeros((2, 3)), "b": np.zeros(5, np.uint8), "c": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}
    assert size_of(tree) == 24 + 5 + 8
    keys = jax.random.split(jax.random.key(0), 3)
    assert size_of(keys) == jax.random.key_data(keys).nbytes == 24


def test_a_cpu_shares_the_machines_memory():
    device = jax.devices()[0]
    whole = memory.capacity(device, 1)
    assert whole > 2**28
    assert memory.capacity(device, 2) == whole // 2


def test_an_accelerator_says_what_it_has():
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1000}

    assert memory.capacity(Device(), 4) == 1000


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**51, "2048.0 TiB")]
)
def test_readable(size, text):
    assert readable(size) == text
