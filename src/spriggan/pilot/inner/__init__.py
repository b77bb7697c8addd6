"""Assembles and runs the inner container; the same on a host and in a guest."""
