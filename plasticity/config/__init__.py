"""From a YAML file to a checked experiment: the members' settings, their registry, sweeps, plug-ins.

Imports ``core.errors`` alone, and never JAX, so that a config is read or refused in a moment. The exception is
``counters``, which checks the sizes of a stream that is built.
"""
