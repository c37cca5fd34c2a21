"""``python -m plasticity``, and what the command ``plasticity`` calls."""

import signal
import sys


def main() -> None:
    """Runs the command line; Ctrl-C while its modules are still being imported ends it without a traceback."""
    try:
        from plasticity.cli.main import main as command_line
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    command_line()


if __name__ == "__main__":
    main()
