"""Nothing but ids becomes part of a path, and nothing outside the pool is touched."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.disk import Pool
from spriggan.disk.volume import LARGEST, SMALLEST, size_for
from spriggan.errors import InvalidRequest, InvalidValue

pool = Pool(Path("/nowhere"))


@given(st.text())
def test_a_name_leads_into_the_pool_or_nowhere(name):
    for place in (lambda: pool.disk_dir(name), lambda: pool.checkpoint_dir("sprite-1", name)):
        try:
            path = place()
        except InvalidRequest:
            continue
        assert path.name == name
        assert Path(*path.parts[:4]) in (Path("/nowhere/pool/disks"), Path("/nowhere/pool/checkpoints"))
        assert not name.startswith(".")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n", "a.next", "-a", "a\0b"])
def test_hostile_names(name):
    with pytest.raises(InvalidRequest):
        pool.disk_path(name)


@pytest.mark.parametrize(
    "path", ["/etc", "/nowhere/pool", "/nowhere/pool/disks", "/nowhere/pool/disks/../../x"]
)
def test_only_what_is_in_the_pool_is_thrown_away(path):
    for throw in (pool.retire, pool.delete):
        with pytest.raises(InvalidRequest):
            throw(Path(path))


@pytest.mark.parametrize("size", [0, -1, 16_001])
def test_impossible_sizes(size):
    with pytest.raises(InvalidValue):
        pool.create_disk("sprite-1", size)


def test_size_of_a_volume(tmp_path):
    size = size_for(tmp_path)
    assert SMALLEST <= size <= LARGEST
    assert size % (1 << 20) == 0
