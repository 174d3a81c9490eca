"""Yaoki in other libraries: one small file each, loaded only by who imports it."""
