"""Runs on disk: planning, launching, recording, saving, resuming and measuring experiments.

All files of a run are written here. Imports ``core``, ``config``, ``engine`` and every family's members.
"""
