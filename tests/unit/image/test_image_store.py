"""The store without any image: what it refuses, and that it then leaves no trace."""

import pytest

from spriggan.errors import InvalidRequest, NotFound
from spriggan.image import ImageStore


def test_an_empty_store(tmp_path):
    store = ImageStore(tmp_path)
    assert store.list() == []
    store.unmount_all()
    with pytest.raises(NotFound, match="no image 'sprites'") as error:
        store.get("sprites")
    assert error.value.hint
    with pytest.raises(NotFound):
        store.remove("sprites", set())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "", "A", "a/../b", "x\0"])
def test_hostile_names_touch_nothing(tmp_path, name):
    store = ImageStore(tmp_path / "data")
    for action in (store.get, lambda n: store.build(name=n), lambda n: store.remove(n, set())):
        with pytest.raises(InvalidRequest):
            action(name)
    assert list(tmp_path.iterdir()) == []


def test_hostile_digests_touch_nothing(tmp_path):
    store = ImageStore(tmp_path / "data")
    with pytest.raises(InvalidRequest):
        store.mount_layers(["a" * 64, "../../etc"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_layer_is_named(tmp_path):
    store = ImageStore(tmp_path)
    with pytest.raises(NotFound, match="layer aaaaaaaaaaaa is missing"):
        store.mount_layers(["a" * 64])
