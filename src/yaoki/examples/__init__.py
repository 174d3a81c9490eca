"""Programs to read and to run, written as a user would: they use the public API only."""
