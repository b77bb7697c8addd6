"""``spriggan serve``."""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
from pathlib import Path

import click

from spriggan.cli.command import Command, Number, Settings, pass_settings, require_root
from spriggan.doctor.gate import gate
from spriggan.linux import heap

LISTEN = "127.0.0.1:7878"

# KillMode: sprites go on while the server is replaced. Delegate: it makes cgroups.
UNIT = """\
[Unit]
Description=Spriggan: persistent Linux computers
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command}
KillMode=process
Delegate=yes
Restart=on-failure
TasksMax=infinity
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


@click.command("serve", cls=Command)
@click.option("--listen", default=LISTEN, show_default=True, metavar="HOST:PORT", help="Port 0: a free one.")
@click.option(
    "--url",
    default="",
    metavar="URL",
    help="Where sprites are reached, if not at http://{name}.sprites.localhost:PORT.",
)
@click.option("--max-ram", type=click.IntRange(min=1), metavar="MIB", help="Most memory of a sprite.")
@click.option("--max-cpus", type=Number(min=0.1), metavar="N", help="Most CPUs of a sprite.")
@click.option("--max-storage", type=click.IntRange(min=1), metavar="GB", help="Largest disk of a sprite.")
@click.option("--reserve", type=click.IntRange(min=0), metavar="MIB", help="Space of the host to keep free.")
@click.option("--idle", type=Number(min=0), metavar="SECONDS", help="From the last use to warm.")
@click.option(
    "--retire",
    type=Number(min=0),
    metavar="SECONDS",
    help="From the last use to without a pilot, which saves memory; 0: never.",
)
@click.option(
    "--max-running", type=click.IntRange(min=0), metavar="N", help="Sprites that run at a time; 0: no limit."
)
@click.option(
    "--create-rate", type=click.IntRange(min=0), metavar="N", help="New sprites in a minute; 0: no limit."
)
@click.option(
    "--spares",
    type=click.IntRange(min=0, max=16),
    metavar="N",
    help="Boxes kept ready for the next creates; 1 if not given.",
)
@click.option("--print-unit", is_flag=True, help="Print a systemd unit that runs this, and end.")
@pass_settings
def command(
    settings: Settings,
    *,
    listen: str,
    url: str,
    max_ram: int | None,
    max_cpus: float | None,
    max_storage: int | None,
    reserve: int | None,
    idle: float | None,
    retire: float | None,
    max_running: int | None,
    create_rate: int | None,
    spares: int | None,
    print_unit: bool,
) -> None:
    """Run the server until SIGTERM. Sprites go on running without it, and are found again.

    The first token is written to DIR/token. 'spriggan down' stops everything.

    \b
    Example:
      sudo spriggan serve
      sudo spriggan serve --data /srv/spriggan --listen 127.0.0.1:8000
      sudo spriggan serve --url 'https://{name}.sprites.example.com'
      spriggan serve --print-unit | sudo tee /etc/systemd/system/spriggan.service
    """
    data = settings.data.absolute()
    if print_unit:
        given = [
            ("--data", data),
            ("--listen", listen),
            ("--url", url or None),
            ("--max-ram", max_ram),
            ("--max-cpus", max_cpus),
            ("--max-storage", max_storage),
            ("--reserve", reserve),
            ("--idle", idle),
            ("--retire", retire),
            ("--max-running", max_running),
            ("--create-rate", create_rate),
            ("--spares", spares),
        ]
        words = [str(_program()), "serve"]
        words += [str(word) for option, value in given if value is not None for word in (option, value)]
        click.echo(UNIT.format(command=" ".join(map(_quoted, words))), nl=False)
        return
    require_root("running the server")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    heap.grow()
    with gate(data) as machine:
        # Loading the server takes longer than looking at the machine, so the one is done during the other.
        from spriggan.engine import Engine, Options  # noqa: PLC0415
        from spriggan.server.serve import listen_address, run  # noqa: PLC0415
        from spriggan.server.urls import Urls  # noqa: PLC0415

        host, port = listen_address(listen)
        if url:
            Urls.parse(url)
        machine.require()
    chosen = {
        "max_ram_mb": max_ram,
        "max_cpus": max_cpus,
        "max_storage_gb": max_storage,
        "reserve_bytes": None if reserve is None else reserve << 20,
        "idle_seconds": idle,
        "retire_after_seconds": retire,
        "max_running": max_running,
        "creations_per_minute": create_rate,
        "spares": spares,
    }
    options = Options(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    engine = Engine(data, options)
    asyncio.run(run(engine, host=host, port=port, unix_socket=data / "api.sock", url=url, prepare=_settle))


async def _settle() -> None:
    """Everything is loaded."""
    heap.settle()


def _program() -> Path:
    return Path(sysconfig.get_path("scripts")) / "spriggan"


def _quoted(word: str) -> str:
    """``word`` as systemd reads it in ExecStart."""
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(char, escaped)
    return f'"{word}"' if any(c.isspace() or c in "\"'\\;" for c in word) or not word else word
