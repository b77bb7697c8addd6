"""The walls around a running sprite."""
