"""Tools for the network policy."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from spriggan.cli.tools.sprites import Name
from spriggan.cli.tools.toolbox import Kind, Toolbox

RULES = (
    'Each is {"domain": "*.npmjs.org", "action": "allow"}, with "deny" for the opposite, or '
    '{"include": "defaults"}. The most exact name counts; what no rule names is denied. None at all: '
    "everything is allowed."
)


def add(toolbox: Toolbox) -> None:
    """Put the tools into ``toolbox``."""
    api = toolbox.api

    @toolbox.tool(Kind.LOOKS)
    def get_network_policy(sprite: Name) -> dict[str, Any]:
        """Show which names a sprite may reach."""
        policy: dict[str, Any] = api.get(f"{toolbox.path(sprite)}/policy/network")
        return policy

    @toolbox.tool(Kind.REPLACES)
    def set_network_policy(
        sprite: Name, rules: Annotated[list[dict[str, str]], Field(description=RULES)]
    ) -> str:
        """Say which names a sprite may reach. In force at once, also for connections that are open."""
        api.post(f"{toolbox.path(sprite)}/policy/network", {"rules": rules})
        return "The policy is in force"
