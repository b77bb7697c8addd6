"""Sprites on imported images: such as people have, made by tools of others, down to one file."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import archives
import images
import serving
from spriggan.image.sources import Distribution

BUSYBOX = Path("/bin/busybox")
KEEPALIVE = "/.pilot/keepalive"

CONTAINERFILE = r"""
FROM scratch
ADD root.tar /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /app/old/deep /app/gone /app/kept && echo base > /app/old/deep/file && echo base > /app/old/other \
 && echo base > /app/gone/file && echo base > /app/kept/file && ln -s /etc/shadow /app/link && echo 1 > /app/single
RUN rm -r /app/gone /app/old /app/single && mkdir /app/old && echo new > /app/old/fresh
RUN echo 'worker:x:1234:1234::/home/worker:/bin/ash' >> /etc/passwd; echo 'workers:x:1234:' >> /etc/group; \
    mkdir /home/worker; chown -R 1234:1234 /app /home/worker; chmod 4755 /app/kept/file
ENV GREETING="hello world" PATH=/bin:/app
WORKDIR /app
USER worker
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo hi"]
"""


def import_image(
    server: serving.Server, name: str, source: Path | str, *options: str, input: bytes | None = None
) -> None:
    done = server.cli("image", "import", name, str(source), "--data", str(server.data), *options, input=input)
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def sprite_of(server: serving.Server, name: str, image: str) -> Iterator[Any]:
    """A sprite made from an image through the API, as the official client has it."""
    with server.http() as http:
        answer = http.post("/v1/sprites", json={"name": name, "image": image})
        assert answer.status_code == 201, answer.text
        assert answer.json()["image"] == image
    sprite = server.client().sprite(name)
    try:
        yield sprite
    finally:
        sprite.delete()


def busybox_root() -> bytes:
    """A root file system that holds busybox, its shell, and nothing else."""
    if not BUSYBOX.exists() or not Path("/usr/share/doc/busybox-static").exists():
        pytest.skip("needs the package busybox-static")
    return archives.archive(
        archives.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755), archives.symlink("bin/sh", "busybox")
    )


@pytest.fixture(scope="module")
def podman_archives() -> Iterator[Path]:
    """One image, built by podman and saved in its forms."""
    root = busybox_root()
    for program in ("podman", "skopeo"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    with tempfile.TemporaryDirectory(prefix="spriggan-podman-", dir="/var/tmp") as name:
        place = Path(name)
        (place / "Containerfile").write_text(CONTAINERFILE)
        base = archives.archive(
            root.removesuffix(archives.END),
            archives.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
            archives.file("etc/group", b"root:x:0:\n"),
            archives.directory("tmp", mode=0o1777),
            archives.directory("home"),
        )
        (place / "root.tar").write_bytes(base)
        storage = f"--root={place}/storage --runroot={place}/run --storage-driver=overlay"
        podman = f"podman {storage} --cgroup-manager=cgroupfs".split()
        options = (
            "--isolation=chroot --network=host --layers --ulimit=nofile=8192:8192 --ulimit=nproc=8192:8192"
        )
        build = [*podman, "build", *options.split(), "-t", "localhost/it:1", name]
        try:
            run(build)
            for form in ("docker-archive", "oci-archive"):
                run([*podman, "save", f"--format={form}", f"--output={place}/{form}", "localhost/it:1"])
        finally:
            subprocess.run([*podman, "system", "reset", "--force"], capture_output=True, check=False)
            subprocess.run(["umount", f"{place}/storage/overlay"], capture_output=True, check=False)
        copy = ["skopeo", "copy", "--dest-compress-format=zstd", f"oci-archive:{place}/oci-archive"]
        run([*copy, f"oci:{place}/layout:it"])
        yield place


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])


def test_an_image_of_podman(server: serving.Server, podman_archives: Path) -> None:
    import_image(server, "built", podman_archives / "docker-archive")
    with server.http() as http:
        [image] = [i for i in http.get("/v1/images").json()["images"] if i["name"] == "built"]
    assert (image["user"], image["shell"], image["working_dir"]) == ("worker", "/bin/ash", "/app")
    assert (image["entrypoint"], image["command"]) == (["/bin/sh", "-c"], ["echo hi"])
    shown = server.cli("image", "show", "built", "--data", str(server.data)).stdout.decode()
    for words in ("localhost/it:1", "worker", "/app", "'echo hi'", "GREETING=hello world"):
        assert words in shown
    for form in ("oci-archive", "layout"):
        import_image(server, form, podman_archives / form)
        with server.http() as http:
            [same] = [i for i in http.get("/v1/images").json()["images"] if i["name"] == form]
        assert [layer["digest"] for layer in same["layers"]] == [layer["digest"] for layer in image["layers"]]

    with sprite_of(server, "built", "built") as sprite:
        told = serving.run(
            sprite, "id -u; id -g; pwd; echo $HOME; echo $USER; echo $SHELL; echo $PATH; echo $GREETING"
        )
        assert told.split("\n") == [
            "1234",
            "1234",
            "/app",
            "/home/worker",
            "worker",
            "/bin/ash",
            "/bin:/app",
            "hello world",
        ]
        # What was deleted is gone, and of a directory that was made anew nothing old shows through.
        assert serving.run(sprite, "cd /; find app | sort").split() == [
            *("app", "app/kept", "app/kept/file", "app/link", "app/old", "app/old/fresh")
        ]
        assert (
            serving.run(sprite, "stat -c '%a %u %g' /app/kept/file; readlink /app/link")
            == "4755 1234 1234\n/etc/shadow"
        )
        # Files through the API are the user's.
        (sprite.filesystem("/app") / "written").write_text("by the API")
        assert serving.run(sprite, "stat -c %u /app/written; cat /app/written") == "1234\nby the API"
        # Checkpoint, wreck, restore.
        serving.finished(sprite.create_checkpoint("whole"))
        serving.run(sprite, "rm -rf /app/old /app/written; echo wrecked > /app/kept/other")
        checkpoint = next(c.id for c in sprite.list_checkpoints() if c.id != "Current")
        serving.finished(sprite.restore_checkpoint(checkpoint))
        assert serving.run(sprite, "cat /app/old/fresh /app/written; ls /app/kept") == "new\nby the APIfile"
        # Fork: the same user in the same place, with what was written.
        with server.http() as http:
            assert http.post("/v1/sprites/built/fork", json={"name": "built-fork"}).status_code == 201
        fork = server.client().sprite("built-fork")
        try:
            assert (
                serving.run(fork, "id -u; pwd; hostname; cat written") == "1234\n/app\nbuilt-fork\nby the API"
            )
        finally:
            fork.delete()


def test_the_archive_of_podman_tests_what_it_should(podman_archives: Path, tmp_path: Path) -> None:
    """Its layers have deletions and a directory that hides another."""
    run(["tar", "-C", str(tmp_path), "-xf", f"{podman_archives}/docker-archive"])
    listed = [
        subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True).stdout
        for path in tmp_path.glob("*.tar")
    ]
    assert any("app/old/.wh..wh..opq" in text and "app/.wh.gone" in text for text in listed)


def test_nothing_but_busybox(server: serving.Server) -> None:
    import_image(server, "busybox", "-", input=busybox_root())
    with sprite_of(server, "busybox", "busybox") as sprite:
        assert (
            serving.run(sprite, "echo $0; pwd; echo $HOME $USER $SHELL; busybox id -u")
            == "sh\n/\n/root root /bin/sh\n0"
        )
        assert (
            serving.run(sprite, "busybox ps -o args | busybox head -n 2")
            == f"COMMAND\n/.pilot/tini -- {KEEPALIVE}"
        )
        # A login shell, where neither the command line nor the official client names one.
        console = server.cli(
            "exec", "-s", "busybox", "--", "/bin/sh", "-c", "exec ${SHELL:-/bin/bash} -l -c 'echo $0'"
        )
        assert console.stdout == b"/bin/sh\n"
        with server.http() as http:
            answer = http.post("/v1/sprites/busybox/exec?stdin=true", content=b"echo from a shell\n")
        assert b"from a shell" in answer.content
        with server.http() as http:
            assert http.post("/v1/sprites/busybox/stop").status_code == 200
        assert serving.run(sprite, "echo again") == "again"


def test_no_shell_at_all(server: serving.Server) -> None:
    """As "distroless" images: a program, and a user that is only a number."""
    busybox_root()  # or skip
    program = archives.file("app/busybox", BUSYBOX.read_bytes(), mode=0o755)
    layer = archives.archive(program, archives.directory("data", uid=65532, gid=65532))
    layout = images.layout(layer, User="65532:65532", WorkingDir="/data", Entrypoint=["/app/busybox"])
    import_image(server, "no-shell", "-", input=layout.tar())
    with sprite_of(server, "no-shell", "no-shell") as sprite:
        done = sprite.run(
            "/app/busybox", "sh", "-c", "id -u; id -g; pwd; echo $HOME; echo a > f", capture_output=True
        )
        assert (done.returncode, done.stdout.split()) == (0, [b"65532", b"65532", b"/data", b"/"]), (
            done.stderr
        )
        (sprite.filesystem("/data") / "g").write_text("mine")
        done = sprite.run("/app/busybox", "stat", "-c", "%u:%g", "/data/f", "/data/g", capture_output=True)
        assert done.stdout.split() == [b"65532:65532", b"65532:65532"]
        done = sprite.run("sh", "-c", "true", capture_output=True)
        assert (done.returncode, done.stderr) == (127, b"sh: command not found\n")


def test_as_many_layers_as_there_may_be(server: serving.Server) -> None:
    root = busybox_root()
    layers = [root] + [
        archives.archive(archives.file(f"layer/{n}"), archives.file("top", b"%d" % n)) for n in range(126)
    ]
    import_image(server, "many", "-", input=images.layout(*layers).tar())
    with sprite_of(server, "many", "many") as sprite:
        assert serving.run(sprite, "busybox ls /layer | busybox wc -l; busybox cat /top") == "126\n125"
        assert serving.run(sprite, "busybox grep -c ' / overlay' /proc/mounts") == "1"


def test_a_sprite_that_lost_its_tail_wakes_again(server: serving.Server, sprite: Any) -> None:
    """The first process must not depend on what the user may delete."""
    assert serving.run(sprite, "ps -p 1 -o args=") == "/.pilot/tini -- tail -f /dev/null"
    assert "keepalive" not in serving.run(sprite, "ls /.pilot")
    serving.run(sprite, "sudo rm -rf /usr/bin/tail")
    with server.http() as http:
        assert http.post(f"/v1/sprites/{sprite.name}/stop").status_code == 200
    assert serving.run(sprite, "ps -p 1 -o args=") == f"/.pilot/tini -- {KEEPALIVE}"


@pytest.mark.slow
def test_a_system_that_mmdebstrap_made(server: serving.Server, tmp_path: Path) -> None:
    """A whole Debian or Ubuntu, from this host's own mirrors, as a compressed tar."""
    lists = (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
    sources = [str(path) for path in lists if path.is_file()]
    if shutil.which("mmdebstrap") is None or not sources:
        pytest.skip("needs mmdebstrap and apt sources")
    codename = Distribution.of_host().codename
    run(["mmdebstrap", "--variant=essential", codename, str(tmp_path / "root.tar.gz"), *sources])
    import_image(server, "system", tmp_path / "root.tar.gz")
    with sprite_of(server, "system", "system") as sprite:
        told = serving.run(sprite, "id -un; pwd; dpkg --audit; dpkg-query -W -f '${Status}' bash")
        assert told == "root\n/root\ninstall ok installed"
        assert codename in serving.run(sprite, "cat /etc/os-release")
        serving.run(sprite, "perl -e 'print 6 * 7' > /root/x; chown nobody /root/x")
        assert serving.run(sprite, "stat -c %U /root/x") == "nobody"


@pytest.mark.slow
def test_the_system_that_installs_debian(server: serving.Server, tmp_path: Path) -> None:
    """Its initial root file system: busybox, made by others for another purpose."""
    initrd = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz")
    if not initrd.exists() or shutil.which("bsdtar") is None:
        pytest.skip("needs the packages debian-installer-12-netboot-amd64 and libarchive-tools")
    convert = f"gzip -dc {initrd} | bsdtar -cf {tmp_path}/root.tar --format=pax @-"
    run(["sh", "-c", convert])
    import_image(server, "installer", tmp_path / "root.tar")
    with sprite_of(server, "installer", "installer") as sprite:
        told = serving.run(sprite, "id -u; pwd; ls -l /bin/sh | grep -o busybox; command -v udpkg")
        assert told.split() == ["0", "/", "busybox", "/usr/bin/udpkg"]
        assert serving.run(sprite, "cat /proc/1/cmdline | tr '\\0' ' '").startswith("/.pilot/tini")
