"""What the server and a pilot tell each other: specifications, frames, messages."""
