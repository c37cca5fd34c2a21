"""The compiled loop: lanes on devices, visits, evaluation, and the program that a runner advances chunk by chunk.

Imports ``core``, ``config.counters`` and ``monitors.base``; depends on no member of any family, and on no files.
"""
