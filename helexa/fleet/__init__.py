"""Decisions and the values they are made of: pure functions, frozen classes, no I/O."""
