"""Finding the image in an archive or directory: which form it has, and what is not as it should be."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archives
import images
from images import Layout
from spriggan.errors import InvalidValue
from spriggan.image.importing.files import WHOLE, Archive, Directory
from spriggan.image.importing.layout import Found, find
from spriggan.image.importing.limits import Limits

LAYER = archives.archive(archives.file("x"))
OTHER = archives.archive(archives.file("y"))


class Memory:
    """Files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        if name not in self.files:
            raise FileNotFoundError(name)
        yield io.BytesIO(self.files[name])

    def __contains__(self, name: str) -> bool:
        return name in self.files


def found(files: dict[str, bytes], reference: str | None = None) -> Found:
    image = find(Memory(files), reference)
    assert image is not None
    return image


def test_an_oci_layout() -> None:
    image = found(
        images.layout(
            LAYER,
            OTHER,
            User="app:team",
            WorkingDir="work",
            Env=["A=1", "B=x=y", "EMPTY=", "UNSET"],
            Entrypoint=["/run"],
            Cmd=["a", "b c"],
            Labels={"ignored": "yes"},
        ).files
    )
    assert (image.form, image.reference, image.user, image.working_dir) == (
        "OCI layout",
        "it",
        "app:team",
        "/work",
    )
    assert image.environment == {"A": "1", "B": "x=y", "EMPTY": ""}
    assert (image.entrypoint, image.command) == (("/run",), ("a", "b c"))
    assert [layer.diff_id for layer in image.layers] == [images.sha256(LAYER), images.sha256(OTHER)]
    assert all(layer.name == f"blobs/sha256/{layer.digest}" for layer in image.layers)


def test_a_docker_archive() -> None:
    image = found(images.docker(LAYER, OTHER, User="7", Env=None, Cmd=None))
    assert (image.form, image.reference, image.user) == ("Docker archive", "it:latest", "7")
    assert [layer.diff_id for layer in image.layers] == [images.sha256(LAYER), images.sha256(OTHER)]


def test_a_root_file_system_may_have_files_of_those_names() -> None:
    for files in (
        {},
        {"manifest.json": b'{"name": "my web application"}'},
        {"manifest.json": b"[1, 2]"},
        {"manifest.json": b"not JSON"},
        {"index.json": b"{}", "oci-layout": b"[]"},
        {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'},
    ):
        assert find(Memory(files), None) is None


def test_one_of_several_by_name() -> None:
    layout = Layout()
    layout.add(layout.image([LAYER]), "one").add(layout.image([OTHER]), "two")
    assert found(layout.files, "two").layers[0].diff_id == images.sha256(OTHER)
    with pytest.raises(InvalidValue, match="several images") as error:
        found(layout.files)
    assert "--ref NAME; it holds: one, two" in error.value.hint
    with pytest.raises(InvalidValue, match="no image 'three'") as error:
        found(layout.files, "three")
    assert "one, two" in error.value.hint


def test_one_of_several_in_a_docker_archive() -> None:
    files = images.docker(LAYER, tags=("a:1", "b:2"))
    more = images.docker(OTHER, tags=("c:3",))
    both = json.loads(files["manifest.json"]) + json.loads(more["manifest.json"])
    files = {**files, **more, "manifest.json": json.dumps(both).encode()}
    assert found(files, "b:2").layers[0].diff_id == images.sha256(LAYER)
    with pytest.raises(InvalidValue, match="several images") as error:
        found(files)
    assert "a:1, b:2, c:3" in error.value.hint


def test_the_image_for_this_machine_is_chosen() -> None:
    layout = Layout()
    mine = {"os": "linux", "architecture": images.ARCHITECTURE}
    inner = {
        "manifests": [
            {
                **layout.image([OTHER], architecture="riscv64"),
                "platform": {"os": "linux", "architecture": "riscv64"},
            },
            {**layout.image([LAYER]), "platform": mine},
            {**layout.blob(b"{}"), "platform": {"os": "unknown", "architecture": "unknown"}},
        ]
    }
    layout.add(layout.blob(json.dumps(inner).encode(), images.INDEX), "multi")
    assert found(layout.files).layers[0].diff_id == images.sha256(LAYER)
    inner["manifests"].pop(1)
    layout = Layout()
    layout.add(layout.blob(json.dumps(inner).encode(), images.INDEX))
    with pytest.raises(InvalidValue, match=r"no image for linux/.*only for linux/riscv64, unknown/unknown"):
        found(layout.files)


def test_an_image_for_another_machine() -> None:
    with pytest.raises(InvalidValue, match="for 'linux/s390x', and this host is linux/") as error:
        found(images.layout(LAYER, architecture="s390x").files)
    assert error.value.hint
    with pytest.raises(InvalidValue, match="for 'windows/"):
        found(images.layout(LAYER, os="windows").files)


def altered(change: Callable[[dict[str, bytes]], None]) -> dict[str, bytes]:
    files = dict(images.layout(LAYER).files)
    change(files)
    return files


def _blob_named(files: dict[str, bytes], part: bytes) -> str:
    return next(name for name, data in files.items() if name.startswith("blobs") and part in data)


def _spoil(part: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        name = _blob_named(files, part)
        files[name] = files[name] + b" "

    return change


def _drop(part: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.pop(_blob_named(files, part)) and None


@pytest.mark.parametrize(
    ("files", "match"),
    [
        (altered(_spoil(b'"layers"')), "does not have the digest"),
        (altered(_spoil(b'"rootfs"')), "does not have the digest"),
        (altered(_drop(b'"layers"')), "is missing in it"),
        (altered(_drop(b'"rootfs"')), "is missing in it"),
        (altered(lambda files: files.update({"index.json": b"{"})), "index.json in it is damaged"),
        (altered(lambda files: files.update({"index.json": b'{"manifests": []}'})), "holds no image"),
        (
            altered(
                lambda files: files.update({"index.json": b'{"manifests": [{"digest": "sha256:../../x"}]}'})
            ),
            r"'sha256:\.\./\.\./x' is not a SHA-256 digest",
        ),
        (
            altered(lambda files: files.update({"index.json": b'{"manifests": [{"digest": "sha512:aa"}]}'})),
            "'sha512:aa' is not a SHA-256 digest",
        ),
        (altered(lambda files: files.update({"index.json": b"[" * 100_000})), "index.json in it is damaged"),
        (altered(lambda files: files.update({"index.json": b" " * (9 << 20)})), "more than 8 MiB"),
        (images.layout(LAYER, Env=["=x"]).files, "has no name"),
        (images.layout(LAYER, Env=[f"A{n}={'x' * 1000}" for n in range(100)]).files, "more than 64 KiB"),
        (images.layout(LAYER, Env=["A=\0"]).files, "has a NUL byte"),
        (images.layout(LAYER, User="a\0b").files, "has a NUL byte"),
        (images.layout(LAYER, User=["root"]).files, "configuration in it is damaged: config.User"),
        (images.layout(LAYER, Cmd="a string").files, "configuration in it is damaged: config.Cmd"),
        (images.layout().files, "has no layers"),
        (images.layout(*(LAYER + bytes([n]) for n in range(128))).files, "has 128 layers, and 127 can be"),
        (
            {**images.docker(LAYER), "manifest.json": b'[{"Config": "gone.json", "Layers": []}]'},
            "'gone.json' is missing",
        ),
    ],
)
def test_what_is_not_as_it_should_be(files: dict[str, bytes], match: str) -> None:
    with pytest.raises(InvalidValue, match=match) as error:
        found(files)
    assert len(error.value.message) < 600


def test_the_number_of_layers_must_be_right() -> None:
    files = images.docker(LAYER)
    saved = json.loads(files["manifest.json"])
    saved[0]["Layers"] *= 2
    with pytest.raises(InvalidValue, match="has 2 layers, and its configuration speaks of 1"):
        found({**files, "manifest.json": json.dumps(saved).encode()})


def test_an_altered_configuration_of_a_docker_archive() -> None:
    files = images.docker(LAYER, User="nobody")
    name = next(name for name in files if name.endswith(".json") and name != "manifest.json")
    with pytest.raises(InvalidValue, match="does not have the digest"):
        found({**files, name: files[name].replace(b"nobody", b"root")})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "manifests",
                        "config",
                        "layers",
                        "rootfs",
                        "diff_ids",
                        "digest",
                        "User",
                        "Env",
                        "platform",
                        "annotations",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_an_image_or_refused(anything: object) -> None:
    layout = Layout()
    data = json.dumps(anything).encode()
    layout.add(layout.blob(data, images.MANIFEST))
    manifest = {"config": layout.blob(data), "layers": []}
    for files in (
        {**layout.files, "index.json": data},
        layout.files,
        layout.add(layout.blob(json.dumps(manifest).encode(), images.MANIFEST)).files,
        {"manifest.json": data},
    ):
        try:
            find(Memory(files), None)
        except InvalidValue as error:
            assert len(error.message) < 1000


@contextmanager
def opened(tmp_path: Path, data: bytes) -> Iterator[Archive]:
    (tmp_path / "archive").write_bytes(data)
    fd = os.open(tmp_path / "archive", os.O_RDONLY)
    try:
        yield Archive(fd, Limits())
    finally:
        os.close(fd)


def content(files: Any, name: str) -> bytes:
    with files.open(name) as part:
        return bytes(part.read())


def test_the_files_of_an_archive(tmp_path: Path) -> None:
    data = archives.archive(
        archives.file("./a/b", b"first"),
        archives.file("a/b", b"second"),
        archives.symlink("c/link", "../a/b"),
        archives.hardlink("hard", "a/b"),
        archives.symlink("loop", "loop"),
        archives.symlink("out", "/etc/passwd"),
        archives.directory("a"),
        archives.file(".", b"a file that calls itself the root"),
    )
    with opened(tmp_path, data) as files:
        for name in ("a/b", "./a//b", "c/link", "hard"):
            assert content(files, name) == b"second"
        for name in ("loop", "out", "a", "nothing", "/etc/passwd", "../../etc/passwd"):
            assert name not in files
            with pytest.raises(FileNotFoundError):
                content(files, name)
        assert content(files, WHOLE) == data


def test_the_files_of_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/file").write_bytes(b"content")
    (root / "in").symlink_to("sub/file")
    (root / "abs").symlink_to("/sub/file")
    (root / "out").symlink_to("../secret")
    (tmp_path / "secret").write_bytes(b"secret")
    os.mkfifo(root / "fifo")
    files = Directory(root)
    assert content(files, "sub/file") == content(files, "in") == content(files, "abs") == b"content"
    for name in ("out", "../secret", "sub", "fifo", "nothing", "sub/file/x"):
        assert name not in files
