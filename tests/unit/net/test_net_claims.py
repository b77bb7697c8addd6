"""Slots are divided among the instances of a host, and never given twice."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spriggan.errors import Conflict, Unavailable
from spriggan.net import addresses
from spriggan.net.claims import Claims


def instance(tmp_path: Path, name: str, **options: object) -> Claims:
    data = tmp_path / name
    data.mkdir(exist_ok=True)
    (data / "instance.json").write_text(json.dumps({"id": name}))
    options.setdefault("subordinate_ids", ())
    claims = Claims(name, data, runtime=tmp_path / "run", **options)  # type: ignore[arg-type]
    claims.acquire()
    return claims


def test_two_instances_get_different_slots(tmp_path: Path) -> None:
    one, other = instance(tmp_path, "one"), instance(tmp_path, "other")
    assert one.blocks == [0]
    assert other.blocks == [1]
    assert (one.take([]), one.take([]), one.take([])) == (0, 1, 2)
    assert other.take([]) == 1024


def test_a_restarted_server_finds_its_blocks(tmp_path: Path) -> None:
    instance(tmp_path, "one")
    instance(tmp_path, "other")
    again = instance(tmp_path, "other")
    assert again.blocks == [1]
    assert again.take({1024, 1025}) == 1026


def test_a_released_slot_is_given_again_but_not_at_once(tmp_path: Path) -> None:
    claims = instance(tmp_path, "one")
    first = claims.take([])
    claims.release(first)
    claims.release(first)
    assert claims.take([]) == first + 1
    everything_else = set(range(1024)) - {first}
    assert claims.take(everything_else) == first


def test_a_full_block_leads_to_another(tmp_path: Path) -> None:
    claims = instance(tmp_path, "one")
    assert claims.take(set(range(1024))) == 1024
    assert claims.blocks == [0, 1]
    claims.release_all()
    assert not list((tmp_path / "run/claims").iterdir())


def test_release_all_leaves_the_others_alone(tmp_path: Path) -> None:
    one, _other = instance(tmp_path, "one"), instance(tmp_path, "other")
    one.release_all()
    one.release_all()
    assert [path.name for path in (tmp_path / "run/claims").iterdir()] == ["1"]
    assert instance(tmp_path, "third").blocks == [0]


@pytest.mark.parametrize("how", ["gone", "other id", "half written", "not a claim"])
def test_a_stale_claim_is_taken_over(tmp_path: Path, how: str) -> None:
    instance(tmp_path, "old")
    identity, claim = tmp_path / "old/instance.json", tmp_path / "run/claims/0"
    match how:
        case "gone":
            identity.unlink()
        case "other id":
            identity.write_text('{"id": "new"}')
        case "half written":
            claim.write_text('{"inst')
        case "not a claim":
            claim.write_text("[1]")
    assert instance(tmp_path, "next").blocks == [0]
    assert json.loads(claim.read_text())["instance"] == "next"


def test_a_copied_data_directory_is_refused(tmp_path: Path) -> None:
    instance(tmp_path, "one")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "instance.json").write_text('{"id": "one"}')
    with pytest.raises(Conflict, match="same instance id") as error:
        Claims("one", copy, runtime=tmp_path / "run").acquire()
    assert "copy" in error.value.hint


def test_slots_that_the_host_uses_are_skipped(tmp_path: Path) -> None:
    first = addresses.first_id
    (tmp_path / "subuid").write_text(f"ann:{first(0)}:65536\nbroken line\nbob:{first(2) + 65535}:1\n")
    (tmp_path / "subgid").write_text(f"ann:{first(3) - 1}:2\n")
    claims = instance(
        tmp_path,
        "one",
        subordinate_ids=(tmp_path / "subuid", tmp_path / "subgid", tmp_path / "missing"),
        is_free=lambda slot: slot != 5,
    )
    assert [claims.take([]) for _ in range(4)] == [1, 4, 6, 7]


def test_reserved_slots_are_skipped(tmp_path: Path) -> None:
    claims = instance(tmp_path, "one")
    reserved = [slot for slot in range(32 * 1024) if addresses.is_reserved(slot)]
    claims._blocks = [reserved[0] // 1024]
    before = set(range(reserved[0] // 1024 * 1024, reserved[0]))
    assert claims.take(before) == reserved[-1] + 1


def test_nothing_is_left_on_a_full_host(tmp_path: Path) -> None:
    instance(tmp_path, "one").take([])
    for number in range(addresses.BLOCKS - 1):
        instance(tmp_path, f"n{number}")
    with pytest.raises(Unavailable, match="blocks"):
        instance(tmp_path, "last")


def test_a_host_that_uses_everything_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="in use"):
        instance(tmp_path, "one", is_free=lambda slot: False).take([])


def test_threads_never_get_the_same_slot(tmp_path: Path) -> None:
    claims = instance(tmp_path, "one")
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.extend(claims.take([]) for _ in range(20))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 160


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_take_and_release_in_any_order(tmp_path: Path, steps: list[tuple[bool, int]]) -> None:
    claims = instance(tmp_path, "one")
    held: list[int] = []
    for take, number in steps:
        if take:
            slot = claims.take([1, 3])
            assert slot not in held
            assert slot not in (1, 3)
            held.append(slot)
        elif held:
            claims.release(held.pop(number % len(held)))
    claims.release_all()
