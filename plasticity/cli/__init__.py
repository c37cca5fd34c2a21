"""The command line: what a user types, and what the terminal shows. Nothing imports this package."""
