"""The network outside a sprite: uplinks, the slots they are numbered by, and the host's rules."""
