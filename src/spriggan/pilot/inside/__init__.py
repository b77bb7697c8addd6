"""What the sprite finds of ours inside: its API socket, ``sprite-env`` and a text for those who work there."""
