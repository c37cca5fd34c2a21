"""Entry point of ``python -m plasticity`` and of the command ``plasticity``."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C during imports exits without a traceback."""
    try:
        from plasticity.cli.main import main as command_line
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    command_line()


if __name__ == "__main__":
    main()
