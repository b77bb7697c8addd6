"""No method of the official clients is left untried, also none that a later release of them adds.

What each does in detail is the business of the conformance tests; here each is called, with what it is
meant for, and its answer looked at. What the clients have is asked of themselves.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sprites
from sprites import AsyncSpritesClient, ExecError, NetworkPolicy, NotFoundError, PolicyRule, URLSettings
from sprites.session import kill_session

import nodejs
import serving
from proof import JAVASCRIPT, PYTHON, proves

NewName = Callable[[], str]

SYNCHRONOUS = (sprites.SpritesClient, sprites.Sprite, sprites.SpriteFilesystem, sprites.SpritePath)
ASYNCHRONOUS = (
    sprites.AsyncSpritesClient,
    sprites.AsyncSprite,
    sprites.AsyncSpriteFilesystem,
    sprites.AsyncSpritePath,
)
POLICY = NetworkPolicy(rules=[PolicyRule(domain="*", action="allow")])


def methods(kind: type) -> Iterator[str]:
    """The public methods that a class's instances have."""
    for name, member in vars(kind).items():
        # Of the class itself there is create_token alone, which asks the vendor's own address.
        if not name.startswith("_") and inspect.isfunction(member):
            yield name


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which methods of the Python clients were called, as ``Class.method``."""
    found: set[str] = set()
    for kind in SYNCHRONOUS + ASYNCHRONOUS:
        for name in methods(kind):
            monkeypatch.setattr(kind, name, _spied(found, f"{kind.__name__}.{name}", getattr(kind, name)))
    return found


def _spied(found: set[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def spied(*args: Any, **kwargs: Any) -> Any:
        found.add(name)
        return method(*args, **kwargs)

    return spied


def untried(called: set[str], kinds: tuple[type, ...]) -> set[str]:
    return {f"{kind.__name__}.{name}" for kind in kinds for name in methods(kind)} - called


@proves("every method of the client", PYTHON)
def test_python(server: serving.Server, new_name: NewName, called: set[str]) -> None:
    name = new_name()
    client = server.client()
    assert client.create_sprite(name).name == name
    assert client.get_sprite(name).id
    assert name in [each.name for each in client.list_sprites().sprites]
    assert name in [each.name for each in client.list_all_sprites(name)]
    client.upgrade_sprite(name)
    client.update_url_settings(name, URLSettings(auth="public"))
    assert client.update_sprite(name, labels=["a"]).labels == ["a"]

    sprite = client.sprite(name)
    sprite.upgrade()
    sprite.update_url_settings(URLSettings(auth="sprite"))
    assert sprite.update(labels=["b"]).labels == ["b"]
    assert sprite.run("echo", "1", capture_output=True).stdout == b"1\n"
    assert sprite.command("echo", "2").output() == b"2\n"
    _sessions(sprite)
    _files(sprite.filesystem("/home/sprite"))

    [*_, last] = sprite.create_service("web", "sleep", ["1000"], duration=0.1)
    assert last.type == "complete"
    assert [each.name for each in sprite.list_services()] == ["web"]
    assert sprite.get_service("web").cmd == "sleep"
    sprite.signal_service("web", "CONT")
    assert [*sprite.stop_service("web", timeout=5)][-1].type == "complete"
    assert [*sprite.start_service("web", duration=0.1)][-1].type == "complete"
    sprite.delete_service("web")
    sprite.update_network_policy(POLICY)
    assert sprite.get_network_policy().rules == POLICY.rules

    serving.finished(sprite.create_checkpoint("one"))
    assert sprite.get_checkpoint("v1").comment == "one"
    assert [each.id for each in sprite.list_checkpoints()] == ["Current", "v1"]
    serving.finished(sprite.restore_checkpoint("v1"))

    assert not sprite.use_control_mode() and not sprite.has_control_connection()
    sprite.delete()
    for destroy in (
        client.delete_sprite,
        client.destroy_sprite,
        lambda name: client.sprite(name).destroy(),
    ):
        client.create_sprite(name)
        destroy(name)
        with pytest.raises(NotFoundError):
            client.get_sprite(name)
    client.close()
    # These two are coroutines here, too, and those of the asynchronous client.
    assert untried(called, SYNCHRONOUS) == {
        "Sprite.get_control_connection",
        "Sprite.close_control_connection",
    }


def _sessions(sprite: Any) -> None:
    command = ("sh", "-c", "echo said; exec sleep 1000")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(sprite.command(*command).run)
        [session] = serving.until(sprite.list_sessions)
        attached = threads.submit(sprite.attach_session(session.id).run)
        assert [*kill_session(sprite, session.id, "SIGTERM", 10)][-1].type == "complete"
        for end in (running, attached):
            with pytest.raises(ExecError, match="143"):
                end.result(timeout=30)


def _files(files: Any) -> None:
    directory, file = files / "d", files.path("d", "file")
    directory.mkdir()
    file.write_text("text")
    assert (file.read_text(), file.read_bytes()) == ("text", b"text")
    file.write_bytes(b"bytes", mode=0o600)
    assert (file.exists(), file.is_file(), file.is_dir(), file.stat().size) == (True, True, False, 5)
    file.touch()
    file.chmod(0o640)
    assert file.stat().mode == "0640"
    assert str(file.copy_to("copy")) == "/home/sprite/d/copy"
    assert str((directory / "copy").rename("renamed")) == "/home/sprite/d/renamed"
    assert sorted(directory.listdir()) == ["file", "renamed"]
    (directory / "renamed").replace(file)
    assert [each.name for each in directory.iterdir()] == ["file"]
    file.unlink()
    directory.rmdir()
    (files / "1/2").mkdir(parents=True)
    (files / "1").rmtree()
    assert not (files / "1").exists()


@proves("every method of the client", PYTHON)
async def test_asynchronous_python(server: serving.Server, new_name: NewName, called: set[str]) -> None:
    name = new_name()
    client = AsyncSpritesClient(server.token, base_url=server.url, control_mode=True)
    assert (await client.create_sprite(name)).name == name
    assert (await client.get_sprite(name)).id
    assert name in [each.name for each in (await client.list_sprites()).sprites]
    assert name in [each.name for each in await client.list_all_sprites(name)]
    await client.upgrade_sprite(name)
    await client.update_url_settings(name, URLSettings(auth="public"))
    assert (await client.update_sprite(name, labels=["a"])).labels == ["a"]

    sprite = client.sprite(name)
    await sprite.upgrade()
    await sprite.update_url_settings(URLSettings(auth="sprite"))
    assert (await sprite.update(labels=["b"])).labels == ["b"]
    assert (await sprite.run("echo", "1", capture_output=True)).stdout == b"1\n"
    assert await sprite.command("echo", "2").output() == b"2\n"
    assert sprite.use_control_mode() and sprite.has_control_connection()
    assert not (await sprite.get_control_connection()).is_closed()
    await sprite.close_control_connection()

    running = asyncio.ensure_future(sprite.run("sh", "-c", "echo said; exec sleep 2", capture_output=True))
    while not (sessions := await sprite.list_sessions()):
        await asyncio.sleep(0.05)
    assert b"said\n" in await sprite.attach_session(sessions[0].id).output()
    assert (await running).returncode == 0
    await _asynchronous_files(sprite.filesystem("/home/sprite"))

    [*_, last] = await sprite.create_service("web", "sleep", ["1000"], duration=0.1)
    assert last.type == "complete"
    assert [each.name for each in await sprite.list_services()] == ["web"]
    assert (await sprite.get_service("web")).cmd == "sleep"
    await sprite.signal_service("web", "CONT")
    assert [*await sprite.stop_service("web", timeout=5)][-1].type == "complete"
    assert [*await sprite.start_service("web", duration=0.1)][-1].type == "complete"
    await sprite.delete_service("web")
    await sprite.update_network_policy(POLICY)
    assert (await sprite.get_network_policy()).rules == POLICY.rules

    serving.finished(await sprite.create_checkpoint("one"))
    assert (await sprite.get_checkpoint("v1")).comment == "one"
    assert [each.id for each in await sprite.list_checkpoints()] == ["Current", "v1"]
    serving.finished(await sprite.restore_checkpoint("v1"))

    await sprite.delete()
    for destroy in (
        client.delete_sprite,
        client.destroy_sprite,
        lambda name: client.sprite(name).destroy(),
    ):
        await client.create_sprite(name)
        await destroy(name)
        with pytest.raises(NotFoundError):
            await client.get_sprite(name)
    await client.aclose()
    assert untried(called, ASYNCHRONOUS) == set()


async def _asynchronous_files(files: Any) -> None:
    directory, file = files / "d", files.path("d", "file")
    await directory.mkdir()
    await file.write_text("text")
    assert (await file.read_text(), await file.read_bytes()) == ("text", b"text")
    await file.write_bytes(b"bytes", mode=0o600)
    assert (await file.exists(), await file.is_file(), await file.is_dir()) == (True, True, False)
    await file.touch()
    await file.chmod(0o640)
    assert (await file.stat()).mode == "0640"
    assert str(await file.copy_to("copy")) == "/home/sprite/d/copy"
    assert str(await (directory / "copy").rename("renamed")) == "/home/sprite/d/renamed"
    assert sorted(await directory.listdir()) == ["file", "renamed"]
    await (directory / "renamed").replace(file)
    assert [each.name async for each in directory.iterdir()] == ["file"]
    await file.unlink()
    await directory.rmdir()
    await (files / "1/2").mkdir(parents=True)
    await (files / "1").rmtree()
    assert not await (files / "1").exists()


JAVASCRIPT_CALLS = """
const { Sprite, SpriteCommand, SpriteFilesystem } = await import("@fly/sprites");
const untried = new Set();
for (const kind of [SpritesClient, Sprite, SpriteCommand, SpriteFilesystem]) {
    for (const name of Object.getOwnPropertyNames(kind.prototype)) {
        const method = kind.prototype[name];
        if (name === "constructor") continue;
        untried.add(`${kind.name}.${name}`);
        kind.prototype[name] = function (...rest) {
            untried.delete(`${kind.name}.${name}`);
            return method.apply(this, rest);
        };
    }
}
const is = (found, wanted) => {
    const [one, other] = [JSON.stringify(found), JSON.stringify(wanted)];
    if (one !== other) throw new Error(`${one} is not ${other}`);
};
const first = (emitter, event) => new Promise((done, failed) => {
    emitter.once(event, (...values) => done(values));
    emitter.once("error", failed);
});
const last = async (stream) => (await all(await stream)).at(-1).type;

const own = args.name;
is((await client.createSprite(own)).name, own);
const made = await client.getSprite(own);
is((await client.listSprites({prefix: own})).sprites.map((each) => each.name), [own]);
is((await client.listAllSprites(own)).map((each) => each.name), [own]);
const watched = await client.watchSprites({prefix: own});
for await (const change of watched) { is(change.name, own); break; }
await made.upgrade();
is((await made.restart()).spriteName, own);
is((await made.check()).status, "healthy");
await made.updateURLSettings({auth: "public"});
is((await made.update({labels: ["a"]})).labels, ["a"]);

is((await made.exec("echo 1")).stdout, "1\\n");
is((await made.execFile("echo", ["2"])).stdout, "2\\n");
is((await made.execFileHTTP("echo", ["3"])).stdout, "3\\n");
const spawned = made.spawn("sleep", ["1000"]);
await first(spawned, "spawn");
spawned.signal("CONT");
spawned.kill("SIGTERM");
is(await spawned.wait(), 143);
is(spawned.exitCode(), 143);
const session = made.createSession("sh", ["-c", "echo said; read line; stty size; sleep 1000"]);
await first(session.stdout, "data");
session.resize(101, 31);
session.stdin.write("\\n");
let shown = "";
for await (const data of session.stdout) { shown += data; if (shown.includes("31 101")) break; }
const [listed] = await made.listSessions();
const attached = made.attachSession(listed.id);
is(String((await first(attached.stdout, "data"))[0]).includes("said"), true);
is(await last(made.killSession(listed.id, "SIGTERM", "5s")), "complete");

const ports = await made.watchPorts();
await ports.next();
ports.close();
const several = await made.proxyPorts([{localPort: 0, remotePort: 2}]);
for (const proxied of [await made.proxyPort(0, 1), ...several]) proxied.close();

const files = made.filesystem("/home/sprite");
await files.mkdir("d");
await files.writeFile("d/a", "text");
await files.appendFile("d/a", " more");
is(await files.readFile("d/a", "utf8"), "text more");
await files.writeJSON("d/j", {a: 1});
is(await files.readJSON("d/j"), {a: 1});
is((await files.readdir("d")).sort(), ["a", "j"]);
is((await files.stat("d/a")).size, 9);
is([await files.exists("d/a"), await files.exists("d/b")], [true, false]);
await files.copyFile("d/a", "d/b");
await files.rename("d/b", "d/c");
await files.chmod("d/c", 0o600);
await files.chown("d/c", {uid: "root", asRoot: true});
const changes = await files.watch("d");
is((await changes.next()).type, "subscribed");
await files.rm("d", {recursive: true});
is((await changes.next()).type, "event");
changes.close();

is(await last(made.createService("web", {cmd: "sleep", args: ["1000"]}, "100ms")), "complete");
is((await made.listServices()).map((each) => each.name), ["web"]);
is((await made.getService("web")).cmd, "sleep");
await made.signalService("web", "CONT");
is(await last(made.restartService("web", "100ms")), "complete");
is(await last(made.stopService("web", "5s")), "complete");
is(await last(made.startService("web", "100ms")), "complete");
is(await last(made.getServiceLogs("web", {lines: 1, duration: "10ms"})), "complete");
await made.deleteService("web");

const rules = [{domain: "*", action: "allow"}];
await made.updateNetworkPolicy({rules});
is((await made.getNetworkPolicy()).rules, rules);
await made.updatePrivilegesPolicy({profile: "minimal"});
is((await made.getPrivilegesPolicy()).profile, "minimal");
await made.deletePrivilegesPolicy();
await made.updateResourcesPolicy({memory: {limitMB: 1024}});
is((await made.getResourcesPolicy()).memory.limitMB, 1024);
await made.deleteResourcesPolicy();

is(await last(made.createCheckpoint("one")), "complete");
is((await made.listCheckpoints()).map((each) => each.id), ["Current", "v1"]);
is((await made.getCheckpoint("v1")).comment, "one");
is(await last(made.restoreCheckpoint("v1")), "complete");

const controlling = new SpritesClient(token, {baseURL: url, controlMode: true}).sprite(own);
is(controlling.useControlMode(), true);
is((await controlling.execFile("echo", ["4"])).stdout, "4\\n");
is(controlling.hasControlConnection(), true);
await controlling.getControlConnection();
controlling.closeControlConnection();

await made.delete();
await client.createSprite(own);
await client.sprite(own).destroy();
say([...untried].sort());
process.exit(0);
"""


@proves("every method of the client", JAVASCRIPT)
def test_javascript(server: serving.Server, sprite: Any, new_name: NewName) -> None:
    [untried] = nodejs.run(server, sprite, JAVASCRIPT_CALLS, name=new_name())
    assert untried == []
