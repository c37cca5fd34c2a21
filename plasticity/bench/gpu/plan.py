"""What the check consists of, most valuable first: data only, no JAX."""

from typing import NamedTuple


class Settings(NamedTuple):
    """How much to do."""

    quick: bool
    seconds: float  # of the whole check


class Section(NamedTuple):
    """``module.function(report, turn, settings, folder, *arguments)``; ``folder``: its own, for what it writes."""

    name: str
    module: str  # in this package, or, where its name has a dot, as it is imported
    function: str
    arguments: tuple[str, ...] = ()
    timed: float = 0.0  # seconds of its turn, alone on the machine; 0: it wants none
    rest: bool = False  # its turn is whatever is left


AGENTS = ("classifier", "stream_q", "dqn", "c51", "ppo")
SECTIONS = (
    Section("facts", "facts", "facts"),
    *(Section(f"lanes {name}", "scaling", "scaling", (name,), 14) for name in AGENTS),
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
PREPARE = 0.38  # of all seconds: until then sections begin to compile something
ALONE = 0.5  # of all seconds: from then on what still prepares is ended, so that turns begin
