"""The sprite's files: read, written, listed and deleted as one of its own users would."""
