"""Networks: a spec says what a network is, and the builder makes it and its wiring. Imports ``core`` and ``config``."""
