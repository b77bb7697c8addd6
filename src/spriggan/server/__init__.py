"""The server: REST and WebSocket for clients, over the engine."""
