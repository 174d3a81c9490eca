"""Failures on purpose: the catalogue of faults, experiments, and what makes them stop."""
