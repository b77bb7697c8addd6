"""A pilot's life: from the fork to serving one sprite."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

# Imported here, in the zygote, and not by uvicorn in each pilot: that takes 15 ms.
from uvicorn.lifespan.off import LifespanOff
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from spriggan import faults
from spriggan.linux import namespaces, process
from spriggan.linux.autofs import Automount
from spriggan.linux.cgroup import Group, hierarchies
from spriggan.linux.mount import MNT_DETACH, umount
from spriggan.pilot import MAX_HEAD
from spriggan.pilot.app import Apps
from spriggan.pilot.inner import belongings, keeper, root, router
from spriggan.pilot.inner.container import Container
from spriggan.pilot.inner.egress import Egress
from spriggan.pilot.inner.kit import Kit
from spriggan.pilot.inner.resolver import Resolver
from spriggan.pilot.report import Report
from spriggan.pilot.retirement import Retirement
from spriggan.wire.policy import NetworkPolicy
from spriggan.wire.spec import SpriteSpec, Uplink

STAGING = "root"
# When the host itself runs out of memory, sprites go first, those with the largest processes.
OOM_SCORE = 500
LAST_WORDS_S = 0.3  # for the exit codes of sessions to reach their clients
INNER_CONNECTIONS = 128
INNER_HEAD = 16 << 10
MESSAGE_BYTES = 16 << 20  # the largest WebSocket message taken; official clients stay below 10 MB


@dataclass
class World:
    """What a pilot has set up or taken over."""

    spec: SpriteSpec
    held: keeper.Held
    container: Container
    new: bool  # no pilot was here before
    automount: Automount | None


def run(spec_file: Path, *, netns: int, report: int, kit: Kit) -> None:
    """Be the pilot of the sprite in ``spec_file``; returns when told to end.

    What goes wrong before the sprite is up is written to ``report`` as ``{"error": …}``, with
    ``"disk": true`` if it is that the disk does not mount. A pilot that nobody waits for any more ends:
    whoever asked for it is dead, and others may start the sprite. One of a spare ends when that is up.
    """
    spec, told = SpriteSpec.from_json(spec_file.read_text()), Report(report)
    try:
        _leave_the_zygote(spec)
        previous = keeper.find(Path(spec.run_dir))
        world = _take_over(spec, previous, kit) if previous else _set_up(spec, netns, told, kit)
    except BaseException as error:
        traceback.print_exc()
        told.say({"error": str(error) or repr(error), "disk": isinstance(error, root.DiskDoesNotMount)})
        os._exit(1)
    if spec.is_spare:
        faults.point("pilot:spare")
        told.say({"ok": True})
        return  # the keeper holds what another pilot needs, when there is a sprite to serve
    try:
        asyncio.run(_serve(world, told))
    except BaseException as error:
        traceback.print_exc()
        told.say({"error": str(error) or repr(error)})
        os._exit(1)


def rehearse(kit: Kit) -> None:
    """Make the apps once, in the zygote: the patterns of their routes are compiled for all pilots then."""
    spec = SpriteSpec(
        sprite_id="",
        name="",
        hostname="",
        run_dir="/",
        containers_dir="/",
        spool_dir="/",
        disk="",
        layers=[],
        first_id=0,
        cgroup="",
        uplink=Uplink("", "", "", "", "", 0),
    )
    nowhere = Container(spec, kit, staging=Path("/"), userns=-1, netns=-1)
    Apps(nowhere, spec, Egress(NetworkPolicy([])), -1)


def _leave_the_zygote(spec: SpriteSpec) -> None:
    """Own session, name, log and cgroup; nothing of the server is left to die with."""
    os.setsid()
    process.set_name(f"pilot:{spec.name or 'spare'}")
    process.set_child_subreaper()
    process.set_oom_score(OOM_SCORE)
    os.chdir("/")
    log = os.open(f"{spec.run_dir}/pilot.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for wanted, fd in ((0, null), (1, log), (2, log)):
        os.dup2(fd, wanted)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    Group(f"{spec.cgroup}/pilot", hierarchies()).enter()
    faults.point("pilot:cgroup")


def _set_up(spec: SpriteSpec, netns: int, report: Report, kit: Kit) -> World:
    """Make the sprite's namespaces and start its container."""
    run_dir = Path(spec.run_dir)
    host_network = namespaces.open_namespace("self", "net")
    host = hierarchies()
    namespaces.setns(netns, namespaces.CLONE_NEWNET)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    if host.kind == "hybrid" and host.unified:
        umount(host.unified, MNT_DETACH)  # crun refuses a mix; alone, version 1 is fine with it
    with namespaces.user_namespace(spec.first_id, namespaces.CLONE_NEWNET) as pid:
        userns = namespaces.open_namespace(pid, "user")
        inner_network = namespaces.open_namespace(pid, "net")
    faults.point("pilot:namespaces")
    # The network is needed by the first command, not by the container's start.
    with namespaces.beside(lambda: router.configure(spec.uplink, inner_network)):
        staging = run_dir / STAGING
        root.prepare(staging)
        automount = belongings.prepare(staging, spec.first_id)
        held = keeper.Held(
            server_listener=_listen(run_dir / "pilot.sock", 0o600),
            inner_listener=_listen(staging / belongings.SOCKET, 0o600),
            user_namespace=userns,
            inner_network=inner_network,
            host_network=host_network,
        )
        keeper.start(run_dir, held)
        faults.point("pilot:keeper")
        container = Container(spec, kit, staging=staging, userns=userns, netns=inner_network)
        # From its cgroup this process is found and ended by whoever comes after a dead server; one that
        # had not got that far must not mount the disk beside its successor.
        report.still_wanted()
        container.start()
    return World(spec, held, container, new=True, automount=automount)


def _take_over(spec: SpriteSpec, previous: keeper.Keeper, kit: Kit) -> World:
    """Carry on where a pilot ended: join the namespaces and take the sockets that the keeper holds."""
    mount_namespace, router_network = previous.namespaces()
    held = previous.borrow()
    namespaces.setns(router_network, namespaces.CLONE_NEWNET)
    namespaces.setns(mount_namespace, namespaces.CLONE_NEWNS)
    container = Container(
        spec,
        kit,
        staging=Path(spec.run_dir) / STAGING,
        userns=held.user_namespace,
        netns=held.inner_network,
    )
    container.adopt()
    faults.point("pilot:adopted")
    with namespaces.beside(container.introduce):
        automount = container.renew_checkpoints()
    return World(spec, held, container, new=False, automount=automount)


def _listen(path: Path, mode: int) -> int:
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen(1024)
    return listener.detach()


async def _serve(world: World, report: Report) -> None:
    """Run both apps and the resolver until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    policy = NetworkPolicy(list(world.spec.policies.network))
    world.container.publish_policy(world.spec.policies.network)
    egress = Egress(policy)
    if world.new and not policy.unrestricted:
        await egress.apply(policy)
    resolver = Resolver(world.spec.hostname, egress=egress)
    await resolver.start(world.held.host_network, router.RESOLVER_ADDRESSES)
    apps = Apps(world.container, world.spec, egress, world.held.inner_network, world.automount)
    await apps.begin()
    servers = [
        await _listen_on(world.held.server_listener, apps.server, http=_WithTransport),
        await _listen_on(world.held.inner_listener, apps.inner, http=_FewAtATime, head=INNER_HEAD),
    ]
    retirement = Retirement(
        Path(world.spec.run_dir), needed=lambda: _needed(world, apps, servers, resolver), leave=apps.leave
    )
    apps.server.router.routes.extend(retirement.routes())
    faults.point("pilot:ready")
    if not report.say({"ok": True, "init_pid": world.container.init_pid}):
        raise OSError("the server died while the sprite was starting")
    faults.point("pilot:reported")
    ends = (stop.wait(), retirement.agreed.wait(), world.container.died(LAST_WORDS_S))
    await asyncio.wait([asyncio.create_task(end) for end in ends], return_when=asyncio.FIRST_COMPLETED)
    if retirement.agreed.is_set():
        return  # nobody is connected, and there is nothing to tidy up
    if not stop.is_set():
        # Nothing is left to serve. A pilot that is gone too tells the server, which then goes to cold; and
        # connections that break off here, which it can explain. Cancelled, they would be told of a defect.
        print("the container ended", file=sys.stderr)
        os._exit(1)
    for server in servers:
        await server.shutdown()
    await resolver.close()


def _needed(world: World, apps: Apps, servers: list[uvicorn.Server], resolver: Resolver) -> str:
    """What the sprite needs its pilot for, at this moment and but for the request that asks; empty for nothing."""
    states = [server.server_state for server in servers]
    if max(sum(len(state.connections) for state in states), sum(len(state.tasks) for state in states)) > 1:
        return "a connection"
    if resolver.busy:
        return "a name that is looked up"
    if not world.container.running:
        return "its first process, which has ended"
    return apps.needed() or ("" if world.container.quiet else "the processes inside")


class _WithTransport(H11Protocol):  # type: ignore[misc]
    """For the server, which is also sent descriptors."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state: dict[str, object] = {**self.app_state, "transport": transport}


class _FewAtATime(H11Protocol):  # type: ignore[misc]
    """For clients inside, of which there may be as many as the sprite can start."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > INNER_CONNECTIONS:
            transport.close()


async def _listen_on(
    listener: int, app: ASGIApp, *, http: type[H11Protocol] = H11Protocol, head: int = MAX_HEAD
) -> uvicorn.Server:
    """Serve ``app`` on a listening socket, without uvicorn's main loop: it wakes ten times a second."""
    config = uvicorn.Config(
        app,
        http=http,
        ws=WebSocketsSansIOProtocol,
        ws_per_message_deflate=False,
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=None,
        lifespan="off",
        log_config=None,
        access_log=False,
        date_header=False,
        h11_max_incomplete_event_size=head,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = LifespanOff(config)
    await server.startup(sockets=[socket.socket(fileno=listener)])
    return server
