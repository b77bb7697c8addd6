"""The arithmetic of slots."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.net import addresses, private
from spriggan.net.host import rules
from spriggan.pilot.inner import router

slots = st.integers(0, addresses.BLOCK * addresses.BLOCKS - 1)
instances = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=8)


@given(instances, slots)
def test_both_ends_are_one_pair_inside_the_private_ranges(instance: str, slot: int) -> None:
    here, there = addresses.host_end(instance, slot), addresses.router_end(instance, slot)
    assert IPv4Network(f"{here.ipv4}/31") == IPv4Network(f"{there.ipv4}/31", strict=False)
    assert IPv6Network(f"{here.ipv6}/127") == IPv6Network(f"{there.ipv6}/127", strict=False)
    for end in (here, there):
        assert end.ipv4 in IPv4Network("169.254.0.0/16")
        assert end.ipv4 not in IPv4Network("169.254.0.0/24")  # reserved by RFC 3927
        assert end.ipv4 not in IPv4Network("169.254.255.0/24")
        assert end.ipv6 in addresses.network6(instance)
        assert end.ipv6 in IPv6Network("fd00::/8")
        assert int(end.mac[:2], 16) & 3 == 2  # of one station, locally administered


@given(instances, slots, slots)
def test_nothing_is_shared_between_slots(instance: str, one: int, other: int) -> None:
    if one == other:
        return
    ends = [
        end(instance, slot) for slot in (one, other) for end in (addresses.host_end, addresses.router_end)
    ]
    for part in ("ipv4", "ipv6", "mac"):
        assert len({getattr(end, part) for end in ends}) == 4
    assert abs(addresses.first_id(one) - addresses.first_id(other)) >= addresses.ID_COUNT
    assert addresses.host_interface(instance, one) != addresses.host_interface(instance, other)


@given(instances, slots)
def test_names_fit_the_kernel_and_lead_back(instance: str, slot: int) -> None:
    name = addresses.host_interface(instance, slot)
    assert len(name) <= 15
    assert addresses.slot_of(instance, name) == slot
    assert addresses.first_id(slot) + addresses.ID_COUNT <= 2**32 - 1


@given(instances, st.text(max_size=15))
def test_only_own_names_lead_to_a_slot(instance: str, name: str) -> None:
    slot = addresses.slot_of(instance, name)
    assert slot is None or addresses.host_interface(instance, slot) == name


@pytest.mark.parametrize("slot", [-1, addresses.BLOCK * addresses.BLOCKS])
def test_a_slot_outside_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        addresses.host_end("abcdefgh", slot)


def test_cloud_addresses_are_never_given_away() -> None:
    for slot in range(addresses.BLOCK * addresses.BLOCKS):
        pair = {
            str(addresses.host_end("abcdefgh", slot).ipv4),
            str(addresses.router_end("abcdefgh", slot).ipv4),
        }
        if pair & {
            "169.254.169.254",
            "169.254.169.253",
            "169.254.169.123",
            "169.254.170.2",
            "169.254.170.23",
        }:
            assert addresses.is_reserved(slot)


def test_router_and_host_turn_away_the_same_addresses() -> None:
    assert router.PRIVATE4 == private.PRIVATE4
    assert router.PRIVATE6 == private.PRIVATE6


def test_the_lists_have_no_overlaps_that_nft_would_refuse() -> None:
    assert len(list(collapse_addresses(private.PRIVATE4))) <= len(private.PRIVATE4)
    for networks in (private.PRIVATE4, private.PRIVATE6):
        for network in networks:
            assert not any(network.overlaps(other) for other in networks if other is not network)


PRIVATE = """
    10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.31.255.255 192.168.0.1 224.0.0.1 255.255.255.255 0.0.0.0
    ::1 :: ::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b::a9fe:a9fe fe80::1 fd00::1 ff02::1 2002:a00:1::1
"""
PUBLIC = """
    1.1.1.1 203.0.113.80 198.51.100.1 192.0.2.1 172.32.0.1 2606:4700::1111 64:ff9b::101:101
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_addresses_are_on_the_list(address: str) -> None:
    assert _listed(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_and_documentation_addresses_are_not(address: str) -> None:
    assert not _listed(address)


def test_rules_name_only_the_instances_own_interfaces() -> None:
    text = rules("spriggan_abcdefgh", "abcdefgh")
    assert 'iifname "sgabcd-*" drop' in text
    assert "sg*" not in text


def _listed(text: str) -> bool:
    address = ip_address(text)
    return any(address in network for network in (*private.PRIVATE4, *private.PRIVATE6))
