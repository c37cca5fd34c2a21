"""Networks: a spec describes a network; the builder creates its functions and wiring. Imports ``core``, ``config``."""
