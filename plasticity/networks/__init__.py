"""Networks: a spec describes a network, and the builder creates it and its wiring. Imports ``core`` and ``config``."""
