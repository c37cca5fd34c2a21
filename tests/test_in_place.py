"""The replay buffer, by far the largest array of a run, is written in place: the training loop never copies it.

Nor does it copy the tree of priorities over it, or the rollout of an agent that learns on-policy.
"""

import functools
import re
from typing import Any

import pytest
from agent_cases import prioritised_replay, program, run, uniform_replay
from chain import chain

from plasticity.agents.replays import prioritised_sequences, sequences
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru
from plasticity.optim.schedules import constant

ROWS = 777  # of the replay, a number that nothing else has: it finds the replay's arrays in the compiled program
TREE = 25  # rows of the lowest level of the tree of priorities: 2 envs x 777 places by 64
SIZES = rf"\b{ROWS}\b|\b{TREE},64\b"
# Instructions that may name an array of that size without passing over it. A fusion's own instructions are looked at
# like all others; an update of a slice and a scatter of a row write into their operand.
CHEAP = {"parameter", "get-tuple-element", "bitcast", "tuple", "while", "conditional", "call", "fusion"}
IN_PLACE = {"dynamic-update-slice", "scatter"}
REPLAY = {"dqn": uniform_replay, "rainbow": prioritised_replay}


def instructions(name: str, width: int, sizes: str, **settings: Any) -> list[tuple[str, str]]:
    """``(shape, operation)`` of every instruction of the compiled loop whose result is an array of these sizes."""
    started = run(program(name, seeds=tuple(range(width)), **settings), width)
    hyper, seeds, _ = started.inputs[0]
    text = started.compiled.chunk.lower(hyper, seeds, started.carry_shape(), started.clock()).compile().as_text()
    found = re.findall(r"= (\w+\[[\d,]*\])\S* ([\w-]+)\(", text)
    return [(shape, operation) for shape, operation in found if re.search(sizes, shape)]


@pytest.mark.parametrize("width", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["dqn", pytest.param("rainbow", marks=pytest.mark.slow)])
def test_the_loop_copies_no_replay_array(name, width):
    found = instructions(name, width, SIZES, replay=REPLAY[name](2 * ROWS), gradient_steps=2)
    lanes = "" if width == 1 else f"{width},"
    kept = [f"f32[{lanes}2,{ROWS},5]"] + [f"f32[{lanes}{TREE},64]"] * (name == "rainbow")
    for array in kept:
        assert {operation for shape, operation in found if shape == array} & IN_PLACE, array  # there, and written
    assert {operation for _, operation in found} <= CHEAP | IN_PLACE


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("kind", [sequences, functools.partial(prioritised_sequences, importance=constant)])
def test_the_loop_copies_no_sequence_and_no_carry(kind, width):
    """Windows that start every 7 steps: 111 carries of 6 numbers for each env."""
    sizes = {"capacity": 2 * ROWS, "minimum": 40, "length": 8, "burn_in": 2, "overlap": 1}
    network = functools.partial(gru, torso=functools.partial(mlp, widths=(6,)), units=6)
    found = instructions(
        "dqn", width, rf"{SIZES}|\b{ROWS // 7}\b", replay=functools.partial(kind, **sizes), network=network
    )
    lanes = "" if width == 1 else f"{width},"
    for array in (f"f32[{lanes}2,{ROWS},5]", f"f32[{lanes}2,{ROWS // 7},6]"):
        assert {operation for shape, operation in found if shape == array} & IN_PLACE, array
    assert {operation for _, operation in found} <= CHEAP | IN_PLACE


@pytest.mark.parametrize("name", ["ppo", pytest.param("pqn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_loop_copies_no_rollout(name, width):
    """Not even the branch that learns from it: it takes rows."""
    array = f"[{'' if width == 1 else f'{width},'}{ROWS},2,5]"
    settings = {"stream": chain(1, ROWS), "chunk": ROWS // 7, "rollout_length": ROWS, "minibatches": 6}
    found = {operation for _, operation in instructions(name, width, re.escape(array), **settings)}
    assert found & IN_PLACE
    assert found <= CHEAP | IN_PLACE
