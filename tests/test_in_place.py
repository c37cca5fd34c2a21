"""The replay buffer, by far the largest array of a run, is written in place: the training loop never copies it.

Nor does it copy the tree of priorities over it.
"""

import re

import pytest
from agent_cases import program, run

ROWS = 777  # of the replay, a number that nothing else has: it finds the replay's arrays in the compiled program
TREE = 25  # rows of the lowest level of the tree of priorities: 2 envs x 777 places by 64
SIZES = rf"\b{ROWS}\b|\b{TREE},64\b"
# Instructions that may name an array of that size without passing over it. A fusion's own instructions are looked at
# like all others; an update of a slice and a scatter of a row write into their operand.
CHEAP = {"parameter", "get-tuple-element", "bitcast", "tuple", "while", "conditional", "call", "fusion"}
IN_PLACE = {"dynamic-update-slice", "scatter"}


def instructions(name: str, width: int) -> list[tuple[str, str]]:
    """``(shape, operation)`` of every instruction of the compiled loop whose result is an array of the replay."""
    started = run(program(name, seeds=tuple(range(width)), replay_capacity=2 * ROWS, gradient_steps=2), width)
    hyper, seeds, _ = started.inputs[0]
    text = started.compiled.chunk.lower(hyper, seeds, started.carry_shape(), started.clock()).compile().as_text()
    found = re.findall(r"= (\w+\[[\d,]*\])\S* ([\w-]+)\(", text)
    return [(shape, operation) for shape, operation in found if re.search(SIZES, shape)]


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("name", ["dqn", "rainbow"])
def test_the_loop_copies_no_replay_array(name, width):
    found = instructions(name, width)
    lanes = "" if width == 1 else f"{width},"
    kept = [f"f32[{lanes}2,{ROWS},5]"] + [f"f32[{lanes}{TREE},64]"] * (name == "rainbow")
    for array in kept:
        assert {operation for shape, operation in found if shape == array} & IN_PLACE, array  # there, and written
    assert {operation for _, operation in found} <= CHEAP | IN_PLACE
