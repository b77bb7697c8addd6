"""Thin typed wrappers of Linux system calls. Imports nothing else of the product."""
