"""An image that comes while the server runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import serving

MARK = "of a layer that was not there when the server started"


@pytest.fixture
def later_image(server: serving.Server, tmp_path: Path) -> Iterator[str]:
    """The default image with one more layer on top."""
    images = server.data / "images"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mark").write_text(MARK)
    packed = tmp_path / "layer.erofs"
    subprocess.run(["mkfs.erofs", "--quiet", packed, tmp_path / "tree"], check=True)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    layer = images / "layers" / f"{digest}.erofs"
    shutil.copy(packed, layer)
    image = json.loads((images / "refs" / "sprites.json").read_text()) | {"name": "later"}
    top = {"digest": digest, "stage": "extra", "bytes": layer.stat().st_size, "key": digest}
    image["layers"].insert(0, top)
    (images / "refs" / "later.json").write_text(json.dumps(image))
    yield "later"
    (images / "refs" / "later.json").unlink()


def test_its_sprites_see_its_layers(
    server: serving.Server, later_image: str, new_name: Callable[[], str]
) -> None:
    client = server.client()
    first = client.create_sprite(new_name())
    assert serving.run(first, "ls /mark 2>/dev/null || echo none") == "none"
    name = new_name()
    assert server.http().post("/v1/sprites", json={"name": name, "image": later_image}).status_code == 201
    later = client.get_sprite(name)
    assert serving.run(later, "cat /mark") == MARK
    for sprite in (later, first):
        sprite.delete()
