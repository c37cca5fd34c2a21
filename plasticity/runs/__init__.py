"""Runs on disk: an experiment planned, launched, recorded, saved, resumed and measured afterwards.

All files are written here. Imports the packages below it: ``core``, ``config``, ``engine``, and every family's members.
"""
