"""What ``spriggan mcp`` gives to agents: tools, each a call or two of the API."""
