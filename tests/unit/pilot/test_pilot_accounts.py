"""Who a user is, by files that may hold anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.pilot.accounts import Account, find

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
broken
half:x:
worker:x:1234:2000:,,,:/home/worker:/bin/ash
nohome:x:7:8::relative:/bin/sh
short:x:9:10
odd:x:²:0::/:
77:x:78:79::/n:
"""
GROUP = """\
root:x:0:
workers:x:2000:
team:x:3000:worker,other
more:x:3001:other,worker
broken:x:
bad:x:٣:worker
"""


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("root", Account("root", 0, 0, [], "/root")),
        ("worker", Account("worker", 1234, 2000, [3000, 3001], "/home/worker")),
        ("1234", Account("worker", 1234, 2000, [3000, 3001], "/home/worker")),
        ("worker:team", Account("worker", 1234, 3000, [], "/home/worker")),
        ("worker:5", Account("worker", 1234, 5, [], "/home/worker")),
        ("worker:", Account("worker", 1234, 2000, [3000, 3001], "/home/worker")),
        ("5555", Account("5555", 5555, 0, [], "/")),
        ("5555:6666", Account("5555", 5555, 6666, [], "/")),
        ("5555:team", Account("5555", 5555, 3000, [], "/")),
        ("77", Account("77", 78, 79, [], "/n")),
        ("nohome", Account("nohome", 7, 8, [], "/")),
        ("short", Account("short", 9, 10, [], "/")),
        ("nobody", None),
        ("odd", None),
        ("worker:nobody", None),
        ("", None),
        (":0", None),
        ("-1", None),
        ("²", None),
    ],
)
def test_users(user: str, account: Account | None) -> None:
    assert find(user, PASSWD, GROUP) == account


def test_without_files() -> None:
    assert find("root", "", "") == Account("root", 0, 0, [], "/root")
    assert find("0", "", "") == Account("0", 0, 0, [], "/")
    assert find("7:8", "", "") == Account("7", 7, 8, [], "/")
    assert find("worker", "", "") is None


@given(st.text(max_size=8), st.text(max_size=60), st.text(max_size=60))
def test_any_files(user: str, passwd: str, group: str) -> None:
    account = find(user, passwd, group)
    assert account is None or account.home.startswith("/")
