"""``spriggan mcp``, driven over its pipes by the client of the official MCP SDK, against a real server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import mcp
from mcp.client.stdio import StdioServerParameters

import serving

LOOKING = {
    "list_sprites",
    "get_sprite",
    "read_file",
    "list_files",
    "list_services",
    "service_logs",
    "list_checkpoints",
    "get_network_policy",
}
ADDING = {"create_sprite", "fork_sprite", "create_checkpoint"}
DESTRUCTIVE = {
    "destroy_sprite",
    "exec_command",
    "write_file",
    "create_service",
    "control_service",
    "delete_service",
    "restore_checkpoint",
    "delete_checkpoint",
    "set_network_policy",
}


class Agent:
    """What an agent's program does: it lists tools, and calls them."""

    def __init__(self, client: mcp.Client) -> None:
        self.client = client

    async def tools(self) -> dict[str, Any]:
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}

    async def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool answers; it must not fail."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, (tool, arguments, result.content)
        found = result.structured_content
        return found["result"] if isinstance(found, dict) and found.keys() == {"result"} else found

    async def refused(self, tool: str, **arguments: Any) -> str:
        """What a tool says that must fail."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, (tool, arguments, result.structured_content)
        return "\n".join(getattr(each, "text", "") for each in result.content)


@asynccontextmanager
async def agent(server: serving.Server, *options: str, **environment: str) -> AsyncIterator[Agent]:
    """An agent with a ``spriggan mcp`` of its own."""
    variables = {**os.environ, "SPRITES_API_URL": server.url, "SPRITE_TOKEN": server.token, **environment}
    started = StdioServerParameters(command=serving.SPRIGGAN, args=["mcp", *options], env=variables)
    async with mcp.Client(started) as client:
        yield Agent(client)


async def test_tools_say_what_they_do_to_what_is_there(server: serving.Server) -> None:
    async with agent(server) as someone:
        tools = await someone.tools()
        assert tools.keys() == LOOKING | ADDING | DESTRUCTIVE
        for name, tool in tools.items():
            assert tool.annotations.read_only_hint == (name in LOOKING), name
            assert name in LOOKING or tool.annotations.destructive_hint == (name in DESTRUCTIVE), name
            assert tool.description and tool.input_schema["type"] == "object", name
    async with agent(server, "--read-only") as careful:
        assert (await careful.tools()).keys() == LOOKING
        assert "create_sprite" in await careful.refused("create_sprite", name="x")


async def test_the_main_job(server: serving.Server, new_name: Callable[[], str]) -> None:
    name = new_name()
    async with agent(server) as someone:
        assert (await someone.call("create_sprite", name=name, labels=["ci"]))["status"] == "cold"
        try:
            assert (await someone.call("get_sprite", sprite=name))["labels"] == ["ci"]
            listed = await someone.call("list_sprites", prefix=name)
            assert name in [each["name"] for each in listed["sprites"]]
            done = await someone.call(
                "exec_command",
                sprite=name,
                command='pwd; echo "$A" >&2; tr a-z A-Z; [[ -n $BASH ]] && exit 7',
                stdin="upper",
                directory="/tmp",
                environment={"A": "a b"},
            )
            assert done == {"exit_code": 7, "stdout": "/tmp\nUPPER", "stderr": "a b\n", "note": ""}

            file = "/home/sprite/new/notes.txt"
            written = await someone.call(
                "write_file", sprite=name, path=file, content="première\n", mode="0600"
            )
            assert written == {"path": file, "size": 10, "mode": "0600"}
            assert await someone.call("read_file", sprite=name, path=file) == {"content": "première\n"}
            [entry] = (await someone.call("list_files", sprite=name, path="/home/sprite/new"))["entries"]
            assert (entry["path"], entry["type"], entry["size"]) == (file, "file", 10)

            assert "v1" in await someone.call("create_checkpoint", sprite=name, comment="first")
            await someone.call("exec_command", sprite=name, command="rm -rf /home/sprite/new")
            assert "no such file" in await someone.refused("read_file", sprite=name, path=file)
            await someone.call("restore_checkpoint", sprite=name, checkpoint="v1")
            assert await someone.call("read_file", sprite=name, path=file) == {"content": "première\n"}
            [saved] = (await someone.call("list_checkpoints", sprite=name))["checkpoints"]
            assert (saved["id"], saved["comment"]) == ("v1", "first")
            every = await someone.call("list_checkpoints", sprite=name, include_automatic=True)
            assert {each["id"][:4] for each in every["checkpoints"]} == {"v1", "auto"}
            await someone.call("create_checkpoint", sprite=name)
            await someone.call("delete_checkpoint", sprite=name, checkpoint="v1")

            await someone.call("fork_sprite", sprite=name, name=f"{name}-fork")
            assert "content" in await someone.call("read_file", sprite=f"{name}-fork", path=file)
            await someone.call("destroy_sprite", sprite=f"{name}-fork")
        finally:
            await someone.call("destroy_sprite", sprite=name)
        assert "not found" in await someone.refused("get_sprite", sprite=name)


async def test_services_and_policies(server: serving.Server, sprite: Any) -> None:
    async with agent(server) as someone:
        script = "echo up; exec sleep 1000"
        said = await someone.call(
            "create_service", sprite=sprite.name, service="web", cmd="sh", args=["-c", script], http_port=8000
        )
        assert said == "[started]\nup\n"
        [service] = (await someone.call("list_services", sprite=sprite.name))["services"]
        assert (service["name"], service["http_port"]) == ("web", 8000)
        named = {"sprite": sprite.name, "service": "web"}
        assert "[started]" in await someone.call("control_service", **named, action="restart")
        assert await someone.call("service_logs", **named, lines=1) == "up\n"
        assert "[stopped]" in await someone.call("control_service", **named, action="stop")
        assert "not running" in await someone.refused("control_service", **named, action="stop")
        await someone.refused("control_service", **named, action="explode")
        await someone.call("delete_service", **named)
        assert await someone.call("list_services", sprite=sprite.name) == {"services": []}

        rules = [{"domain": "*.npmjs.org", "action": "allow"}, {"domain": "*", "action": "deny"}]
        await someone.call("set_network_policy", sprite=sprite.name, rules=rules)
        assert await someone.call("get_network_policy", sprite=sprite.name) == {"rules": rules}
        await someone.refused("set_network_policy", sprite=sprite.name, rules=[{"domain": "*"}])
        assert await someone.call("get_network_policy", sprite=sprite.name) == {"rules": rules}


async def test_long_outputs_are_cut_and_it_is_said(server: serving.Server, sprite: Any) -> None:
    async with agent(server) as someone:
        done = await someone.call("exec_command", sprite=sprite.name, command="seq 1 3000000")
        assert done["stdout"].startswith("1\n2\n") and done["stdout"].endswith("\n2999999\n3000000\n")
        assert "bytes are left out" in done["stdout"] and len(done["stdout"]) < 20_000

        whole = "".join(f"{number} ünïcode\n" for number in range(4000))
        file = "/home/sprite/long"
        await someone.call("write_file", sprite=sprite.name, path=file, content=whole)
        read, offset = "", 0
        while offset is not None:
            part = await someone.call("read_file", sprite=sprite.name, path=file, offset=offset, limit=10_001)
            read += part["content"]
            offset = part.get("next_offset")
        assert read == whole

        serving.run(sprite, "mkdir many; cd many; seq 1 300 | xargs touch")
        listed = await someone.call("list_files", sprite=sprite.name, path="/home/sprite/many")
        assert len(listed["entries"]) == 200 and listed["left_out"].startswith("100 more")


async def test_a_prefix_is_a_limit(server: serving.Server, sprite: Any, new_name: Callable[[], str]) -> None:
    prefix = f"agent-{new_name()}-"
    async with agent(server, "--prefix", prefix) as someone:
        await someone.call("create_sprite", name=f"{prefix}a")
        assert [each["name"] for each in (await someone.call("list_sprites"))["sprites"]] == [f"{prefix}a"]
        assert (await someone.call("list_sprites", prefix=sprite.name))["sprites"] == []
        for tool, arguments in (
            ("get_sprite", {"sprite": sprite.name}),
            ("create_sprite", {"name": f"x{prefix}"}),
            ("fork_sprite", {"sprite": sprite.name, "name": f"{prefix}b"}),
            ("fork_sprite", {"sprite": f"{prefix}a", "name": "elsewhere"}),
            ("exec_command", {"sprite": sprite.name, "command": "true"}),
            ("read_file", {"sprite": sprite.name, "path": "/etc/hosts"}),
            ("write_file", {"sprite": sprite.name, "path": "/tmp/x", "content": ""}),
            ("restore_checkpoint", {"sprite": sprite.name, "checkpoint": "v1"}),
            ("set_network_policy", {"sprite": sprite.name, "rules": []}),
            ("delete_service", {"sprite": sprite.name, "service": "x"}),
            ("destroy_sprite", {"sprite": sprite.name}),
        ):
            assert "out of reach" in await someone.refused(tool, **arguments), (tool, arguments)
        # A slash or a dot of a name is never one of the API's path.
        for name in (f"{prefix}/../{sprite.name}", f"{prefix}a/../../sprites/{sprite.name}", f"{prefix}%2e"):
            await someone.refused("get_sprite", sprite=name)
            await someone.refused("destroy_sprite", sprite=name)
        await someone.refused("delete_checkpoint", sprite=f"{prefix}a", checkpoint="../services/x")
        await someone.call("destroy_sprite", sprite=f"{prefix}a")
    with server.http() as http:
        assert http.get(f"/v1/sprites/{sprite.name}").status_code == 200


async def test_a_command_ends_with_its_time_and_with_its_agent(server: serving.Server, sprite: Any) -> None:
    def running() -> str:
        return serving.run(sprite, "pgrep -f '[s]leep 98765'", check=False)

    command = "echo begun; sleep 98765"
    async with agent(server) as someone:
        done = await someone.call("exec_command", sprite=sprite.name, command=command, timeout_seconds=2)
        assert done["exit_code"] is None and done["stdout"] == "begun\n" and "2 s" in done["note"]
        await asyncio.to_thread(serving.until, lambda: not running())
        call = asyncio.ensure_future(someone.call("exec_command", sprite=sprite.name, command=command))
        await asyncio.to_thread(serving.until, running)
        call.cancel()
        await asyncio.to_thread(serving.until, lambda: not running())


async def test_what_goes_wrong_is_said(server: serving.Server, sprite: Any) -> None:
    async with agent(server) as someone:
        assert "hint:" in await someone.refused("get_sprite", sprite="nobody")
        assert "not found" in await someone.refused("exec_command", sprite="nobody", command="true")
        assert "no text" in await someone.refused("read_file", sprite=sprite.name, path="/bin/ls")
        assert "directory" in await someone.refused("read_file", sprite=sprite.name, path="/etc")
        assert "permission" in await someone.refused(
            "write_file", sprite=sprite.name, path="/etc/x", content=""
        )
        await someone.refused("exec_command", sprite=sprite.name, command="true", timeout_seconds=0)
        assert (await someone.call("exec_command", sprite=sprite.name, command="exit 3"))["exit_code"] == 3
    async with agent(server, SPRITE_TOKEN="wrong") as stranger:
        assert "token" in await stranger.refused("list_sprites")
    async with agent(server, SPRITES_API_URL="http://127.0.0.1:1") as lost:
        assert "no server answers" in await lost.refused("list_sprites")
        assert "no server answers" in await lost.refused("exec_command", sprite="x", command="true")


def test_it_ends_with_its_input_and_says_what_it_lacks() -> None:
    environment = {**os.environ, "SPRITES_API_URL": "http://127.0.0.1:1", "SPRITE_TOKEN": "t"}
    words = [serving.SPRIGGAN, "mcp"]
    done = subprocess.run(words, input=b"", capture_output=True, env=environment, timeout=60, check=True)
    assert done.stdout == b"", "standard output is for the protocol alone"
    without = "import sys; sys.modules['mcp'] = None; from spriggan.cli.main import main; main(['mcp'])"
    words = [sys.executable, "-c", without]
    refused = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert refused.returncode == 1 and "pip install 'spriggan[mcp]'" in refused.stderr
