"""The MCP server, with all tools."""

from __future__ import annotations

from mcp.server import MCPServer

from spriggan import __version__
from spriggan.cli.api import Api
from spriggan.cli.endpoint import Endpoint
from spriggan.cli.tools import checkpoints, commands, files, policies, services, sprites
from spriggan.cli.tools.toolbox import Toolbox

INSTRUCTIONS = """\
Sprites are persistent Linux computers. Files and installed packages stay; an idle sprite sleeps and wakes at the \
next call. A command's processes should end with it: what is to go on running is a service. Make a checkpoint \
before anything that is hard to undo; it takes milliseconds, and restore_checkpoint puts the whole disk back.\
"""


def create_server(endpoint: Endpoint, prefix: str, *, read_only: bool) -> MCPServer:
    """A server whose tools reach sprites at ``endpoint`` whose names begin with ``prefix``."""
    limits = f"\nOnly sprites whose names start with {prefix!r} are there." if prefix else ""
    server: MCPServer = MCPServer(
        "spriggan", version=__version__, instructions=INSTRUCTIONS + limits, log_level="WARNING"
    )
    toolbox = Toolbox(server, Api(endpoint), prefix, read_only=read_only)
    for part in (sprites, commands, files, services, checkpoints, policies):
        part.add(toolbox)
    return server
