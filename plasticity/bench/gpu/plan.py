"""Sections of the check, most valuable first: data only, no JAX."""

from typing import NamedTuple


class Settings(NamedTuple):
    """Extent of the check."""

    quick: bool
    seconds: float  # time limit of the whole check


class Section(NamedTuple):
    """``module.function(report, turn, settings, folder, *arguments)``; ``folder``: its own output folder."""

    name: str
    module: str  # in this package, or a full import path if its name has a dot
    function: str
    arguments: tuple[str, ...] = ()
    timed: float = 0.0  # seconds of its turn, alone on the machine; 0: no turn
    rest: bool = False  # its turn is the remaining time


AGENTS = ("classifier", "stream_q", "dqn", "c51", "ppo", "pqn")
NETWORKS = (
    "gru_ppo",
    "rtu_stream_q",
    "resnet18",
    "impala_dqn",
    "vit",
    "resnet18_patches",
    "impala_dqn_patches",
)
SECTIONS = (
    Section("facts", "facts", "facts"),
    *(Section(f"lanes {name}", "scaling", "scaling", (name,), 12) for name in AGENTS),
    *(Section(f"lanes {name}", "scaling", "scaling", (name,), 5) for name in NETWORKS),
    *(Section(f"against_cpu {name}", "against_cpu", "against_cpu", (name,)) for name in AGENTS),
    Section("determinism", "repeat", "determinism"),
    Section("determinism again", "repeat", "determinism"),
    Section("resume", "repeat", "resume"),
    Section("real run", "real", "real", (), 60, rest=True),
    Section("tests", "suite", "suite"),
    Section("convolution", "kernels", "convolution", (), 12),
    Section("lanes atari_frames", "scaling", "scaling", ("atari_frames",), 14),
    Section("lanes atari_ale", "scaling", "scaling", ("atari_ale",), 20),
    Section("curvature", "curvature", "curvature", (), 14),
)
NAMES = tuple(section.name for section in SECTIONS)
PREPARE = 0.38  # fraction of the time limit until which sections may start a compilation
ALONE = 0.5  # fraction of the time limit at which sections still preparing are ended and turns begin
