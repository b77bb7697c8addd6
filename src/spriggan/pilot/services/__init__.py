"""Services: processes that the pilot starts with the sprite and keeps running."""
