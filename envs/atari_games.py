"""Atari games by name, mode and difficulty, and curricula over them."""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from plasticity.core.errors import shown, suggestion

Chosen = Sequence[int] | Literal["all"] | None
TWO_PLAYERS = ("combat", "joust", "maze_craze", "warlords")


class Game(NamedTuple):
    """A game with its mode and difficulty; ``-1`` is the game's own default."""

    name: str
    mode: int = -1
    difficulty: int = -1


class Flavours(NamedTuple):
    """Modes and difficulties of a game's cartridge."""

    modes: tuple[int, ...]
    difficulties: tuple[int, ...]


@cache
def cartridges() -> dict[str, str]:
    """The emulator's single-player games, the same as envpool's: name -> name of the cartridge."""
    from ale_py import roms

    games = [game for game in roms.get_all_rom_ids() if game not in TWO_PLAYERS]
    return {"".join(word.capitalize() for word in game.split("_")): game for game in games}


def known_games() -> list[str]:
    """The names of the games."""
    return list(cartridges())


@cache
def flavours(name: str) -> Flavours:
    """The modes and difficulties of a game, as reported by the emulator; takes a tenth of a second."""
    from ale_py import ALEInterface, LoggerMode, roms

    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator, cartridge = ALEInterface(), roms.get_rom_path(cartridges()[name])
    assert cartridge is not None
    emulator.loadROM(cartridge)
    return Flavours(tuple(emulator.getAvailableModes()), tuple(emulator.getAvailableDifficulties()))


def known(name: str) -> str:
    """Return ``name``; for an unknown name, ``ValueError`` suggests the nearest game."""
    if name not in cartridges():
        hint = suggestion(name, known_games())
        raise ValueError(f"games: unknown game {shown(name)}; {len(cartridges())} are known{hint}")
    return name


def _allowed(key: str, name: str, given: int, allowed: tuple[int, ...]) -> None:
    if given not in allowed:
        kind = "mode" if key == "modes" else "difficulty"
        values = ", ".join(map(str, allowed))
        raise ValueError(f"games: {name} has no {kind} {given}; its {key}: {values}")


def checked(game: Game) -> Game:
    """Return ``game``; for an unknown mode or difficulty, ``ValueError`` lists the allowed ones."""
    if game.mode >= 0:
        _allowed("modes", game.name, game.mode, flavours(game.name).modes)
    if game.difficulty >= 0:
        _allowed("difficulties", game.name, game.difficulty, flavours(game.name).difficulties)
    return game


def parse(text: str) -> Game:
    """Parse ``Name[:mode[:difficulty]]``; ``ValueError`` if the game, its mode or its difficulty does not exist."""
    name, *flavour = text.split(":")
    known(name)
    if len(flavour) > 2 or not all(part.isdecimal() for part in flavour):
        raise ValueError(f"games: {text!r} is not allowed; must be Name, Name:mode or Name:mode:difficulty")
    return checked(Game(name, *map(int, flavour)))


def _chosen(given: Chosen, every: tuple[int, ...]) -> Sequence[int]:
    return every[:1] if given is None else every if isinstance(given, str) else given


def curriculum(games: Sequence[str], modes: Chosen, difficulties: Chosen) -> list[str]:
    """List each game in each of the modes at the first difficulty, then in each of them at the next.

    ``"all"``: all that the game has, in ascending order. None for both: the games unchanged; None for one of them: the
    game's first. ``ValueError`` if a game already names a mode.
    """
    if modes is None and difficulties is None:
        return list(games)
    if named := [game for game in games if ":" in game]:
        raise ValueError(
            f"games: {shown(named[0])} already names a mode; omit the mode there, or omit modes and difficulties"
        )
    found = []
    for name in map(known, games):
        has = flavours(name)
        hard, played = _chosen(difficulties, has.difficulties), _chosen(modes, has.modes)
        found += [f"{name}:{mode}:{difficulty}" for difficulty in hard for mode in played]
    return found
