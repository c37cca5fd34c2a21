"""The rules of ``forager``, written again in NumPy: objects in a list, one env, one step at a time."""

from dataclasses import dataclass, field

import numpy as np

MOVES = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}


@dataclass
class Thing:
    kind: int  # from 0
    cell: tuple[int, int]
    absent: int = 0  # remaining steps until it is back


@dataclass
class Rules:
    size: int
    aperture: int
    rewards: np.ndarray
    biomes: int
    delay: int
    agent: tuple[int, int]
    things: list[Thing] = field(default_factory=list)

    def biome(self, cell: tuple[int, int]) -> int:
        """The last band whose left edge is not to the right of the cell."""
        edges = [-(-b * self.size // self.biomes) for b in range(self.biomes)]
        return max(b for b, edge in enumerate(edges) if edge <= cell[1])

    def free(self, eaten: Thing) -> set[tuple[int, int]]:
        """Where an eaten object may come back."""
        cells = {(int(r), int(c)) for r, c in np.ndindex(self.size, self.size)}
        held = {thing.cell for thing in self.things if thing is not eaten}
        return {cell for cell in cells - held if self.biome(cell) == self.biome(eaten.cell)}

    def step(self, action: int) -> tuple[float, Thing | None]:
        """The reward, and the object that was eaten, still with its old cell."""
        for thing in self.things:
            thing.absent = max(thing.absent - 1, 0)
        self.agent = tuple((a + m) % self.size for a, m in zip(self.agent, MOVES[action], strict=True))
        for thing in self.things:
            if thing.cell == self.agent and not thing.absent:
                thing.absent = self.delay
                return float(self.rewards[thing.kind]), thing
        return 0.0, None

    def look(self) -> np.ndarray:
        """The whole board, moved until the agent is in the middle, then cut."""
        board = np.zeros((self.size, self.size, len(self.rewards)), np.float32)
        for thing in self.things:
            board[(*thing.cell, thing.kind)] = not thing.absent
        half = self.aperture // 2
        moved = np.roll(board, (half - self.agent[0], half - self.agent[1]), (0, 1))
        return moved[: self.aperture, : self.aperture]
