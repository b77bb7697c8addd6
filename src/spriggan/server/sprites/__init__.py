"""The Sprites dialect: the paths and shapes that official Sprites clients speak."""
