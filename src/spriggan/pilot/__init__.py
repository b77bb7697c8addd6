"""The program beside the user's processes: serves one sprite's exec and files, and runs its container."""
