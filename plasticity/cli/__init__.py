"""The command line: commands and terminal output. Nothing imports this package."""
