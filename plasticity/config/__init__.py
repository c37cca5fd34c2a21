"""From a YAML file to a validated experiment: the members' settings, their registry, sweeps, plug-ins.

Imports only ``core.errors`` and never JAX, so that reading a config is fast. The exception is ``counters``, which
checks the sizes of a stream after it is built.
"""
