"""The two consoles, and what several commands say or check."""

from rich.console import Console
from rich.text import Text

console = Console(soft_wrap=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False)


def say_broken() -> None:
    """Report the plug-ins that cannot be used, in one line.

    Called once a command is accepted: a refusal has its own message.
    """
    from plasticity.runs import launch

    lines = launch.broken_plugins()
    if lines:
        more = f" (and {len(lines) - 1} more; `plasticity list` names each)" if len(lines) > 1 else ""
        errors.print(Text(f"{lines[0]}{more}"))
