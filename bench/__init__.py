"""Benchmarks: each measures Spriggan against a peer or the bare floor, in one run.

``scripts/bench [NAME…]`` runs all or those named. One module is one benchmark: its ``measure``
returns rows; nothing is asserted. Rounds of the product and of its peer take turns, so that what else
the machine does falls on both.
"""
