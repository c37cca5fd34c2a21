"""A reference implementation of four MinAtar games with sets of cells ``(row, column)`` and plain numbers.

``act(action, chance)`` gives the reward and whether the game is over, ``picture()`` the cells of each channel. Chance
is a pair of uint32 where the game has any.
"""

from typing import Any

Cells = set[tuple[int, int]]


def below(word: int, count: int) -> int:
    return (int(word) >> 8) * count // 2**24


def moved(place: int, action: int, back: int, forth: int, low: int = 0, high: int = 9) -> int:
    return min(high, max(low, place + {back: -1, forth: 1}.get(action, 0)))


class Breakout:
    channels = 4

    def __init__(self, chance: Any) -> None:
        side = below(chance[0], 2)
        self.paddle, self.ball, self.velocity = 4, (3, 9 * side), (1, -1 if side else 1)
        self.trail, self.within = self.ball, False
        self.wall()

    def wall(self) -> None:
        self.bricks = {(row, column) for row in (1, 2, 3) for column in range(10)}

    def act(self, action: int, chance: Any) -> tuple[int, bool]:
        self.paddle = moved(self.paddle, action, 1, 3)
        (row, column), (down, right) = self.ball, self.velocity
        to_row, to_column = row + down, column + right
        if to_column not in range(10):
            to_column, right = column, -right
        reward, over, was_within, self.within = 0, False, self.within, False
        if to_row < 0:
            to_row, down = 0, 1
        elif (to_row, to_column) in self.bricks:
            self.within = True
            if not was_within:
                self.bricks.remove((to_row, to_column))
                reward, to_row, down = 1, row, -down
        elif to_row == 9:
            if not self.bricks:
                self.wall()
            if self.paddle == column:
                to_row, down = row, -down
            elif self.paddle == to_column:
                to_row, down, right = row, -down, -right
            else:
                over = True
        self.trail, self.ball, self.velocity = self.ball, (to_row, to_column), (down, right)
        return reward, over

    def picture(self) -> list[Cells]:
        return [{(9, self.paddle)}, {self.ball}, {self.trail}, self.bricks]


def ten_speeds(chance: Any) -> list[int]:
    """Each car's speed from one decimal digit: 0 ... 4 for 1 ... 5 to the right, 5 ... 9 for 1 ... 5 to the left."""
    digits = [int(word) // 10**place % 10 for word in chance for place in range(4)]
    return [digit + 1 if digit < 5 else -(digit - 4) for digit in digits]


class Freeway:
    channels = 7

    def __init__(self, chance: Any) -> None:
        self.row, self.rest, self.left = 9, 3, 2500
        self.cars = [[0, abs(speed), speed] for speed in ten_speeds(chance)]  # column, wait, speed

    def act(self, action: int, chance: Any) -> tuple[int, bool]:
        if action in (2, 4) and self.rest == 0:
            self.row, self.rest = moved(self.row, action, 2, 4), 3
        reward = int(self.row == 0)
        if reward:
            self.row = 9
            for car, speed in zip(self.cars, ten_speeds(chance), strict=True):
                car[1:] = abs(speed), speed
        for lane, car in enumerate(self.cars, 1):
            if (lane, car[0]) == (self.row, 4):
                self.row = 9
            if car[1]:
                car[1] -= 1
            else:
                car[:2] = (car[0] + (1 if car[2] > 0 else -1)) % 10, abs(car[2])
                if (lane, car[0]) == (self.row, 4):
                    self.row = 9
        self.rest, self.left = max(0, self.rest - 1), self.left - 1
        return reward, self.left < 0

    def picture(self) -> list[Cells]:
        shown: list[Cells] = [{(self.row, 4)}] + [set() for _ in range(6)]
        for lane, (column, _, speed) in enumerate(self.cars, 1):
            shown[1].add((lane, column))
            shown[1 + abs(speed)].add((lane, (column + (-1 if speed > 0 else 1)) % 10))
        return shown


class Asterix:
    channels = 4

    def __init__(self, chance: Any) -> None:
        self.row, self.column = 5, 5
        self.things: dict[int, list[int]] = {}  # row -> column, direction, gold
        self.spawn, self.spawn_every, self.move, self.move_every, self.ramp, self.level = 10, 10, 5, 5, 100, 0

    def touch(self) -> tuple[int, bool]:
        thing = self.things.get(self.row)
        if thing is None or thing[0] != self.column:
            return 0, False
        if thing[2]:
            del self.things[self.row]
        return thing[2], not thing[2]

    def act(self, action: int, chance: Any) -> tuple[int, bool]:
        if self.spawn == 0:
            self.spawn = self.spawn_every
            kind, free = below(chance[0], 6), [row for row in range(1, 9) if row not in self.things]
            if free:
                self.things[free[below(chance[1], len(free))]] = [9 * (kind % 2), 1 - 2 * (kind % 2), int(kind < 2)]
        self.column, self.row = moved(self.column, action, 1, 3), moved(self.row, action, 2, 4, 1, 8)
        reward, over = self.touch()
        if self.move == 0:
            self.move = self.move_every
            self.things = {
                row: [column + way, way, gold]
                for row, (column, way, gold) in self.things.items()
                if column + way in range(10)
            }
            more, dead = self.touch()
            reward, over = reward + more, over or dead
        self.spawn, self.move = self.spawn - 1, self.move - 1
        self.harder()
        return reward, over

    def harder(self) -> None:
        if self.spawn_every == self.move_every == 1:
            return
        self.ramp -= 1
        if self.ramp < -1:
            self.move_every = max(1, self.move_every - self.level % 2)
            self.spawn_every = max(1, self.spawn_every - 1)
            self.level, self.ramp = self.level + 1, 100

    def picture(self) -> list[Cells]:
        things = self.things.items()
        trail = {(row, column - way) for row, (column, way, _) in things if column - way in range(10)}
        enemies, gold = ({(row, thing[0]) for row, thing in things if thing[2] == kind} for kind in (0, 1))
        return [{(self.row, self.column)}, enemies, trail, gold]


class SpaceInvaders:
    channels = 6

    def __init__(self, chance: Any) -> None:
        self.cannon, self.rest, self.way, self.slowest, self.move, self.bomb = 5, 0, -1, 12, 12, 10
        self.shots: Cells = set()
        self.bombs: Cells = set()
        self.fleet()

    def fleet(self) -> None:
        self.aliens = {(row, column) for row in range(4) for column in range(2, 8)}

    def march(self) -> bool:
        """Whether the aliens had landed."""
        self.move = min(len(self.aliens), self.slowest)
        if not any(column + self.way not in range(10) for _, column in self.aliens):
            self.aliens = {(row, column + self.way) for row, column in self.aliens}
            return False
        landed = any(row == 9 for row, _ in self.aliens)
        self.way = -self.way
        self.aliens = {((row + 1) % 10, column) for row, column in self.aliens}
        return landed

    def act(self, action: int, chance: Any) -> tuple[int, bool]:
        if action == 5 and self.rest == 0:
            self.shots, self.rest = self.shots | {(9, self.cannon)}, 5
        self.cannon = moved(self.cannon, action, 1, 3)
        self.shots = {(row - 1, column) for row, column in self.shots if row > 0}
        self.bombs = {(row + 1, column) for row, column in self.bombs if row < 9}
        over = (9, self.cannon) in self.bombs | self.aliens
        if self.move == 0:
            over = self.march() or (9, self.cannon) in self.aliens or over
        if self.bomb == 0:
            nearest = min({column for _, column in self.aliens}, key=lambda column: (abs(column - self.cannon), column))
            self.bombs.add((max(row for row, column in self.aliens if column == nearest), nearest))
            self.bomb = 10
        hit = self.aliens & self.shots
        self.aliens, self.shots = self.aliens - hit, self.shots - hit
        self.rest, self.move, self.bomb = max(0, self.rest - 1), self.move - 1, self.bomb - 1
        if not self.aliens:
            self.slowest = max(6, self.slowest - 1)
            self.fleet()
        return len(hit), over

    def picture(self) -> list[Cells]:
        sides = [self.aliens if self.way == way else set() for way in (-1, 1)]
        return [{(9, self.cannon)}, self.aliens, *sides, self.shots, self.bombs]


RULES = {"asterix": Asterix, "breakout": Breakout, "freeway": Freeway, "space_invaders": SpaceInvaders}
