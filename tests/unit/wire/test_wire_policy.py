"""Which rule of a network policy decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.wire.policy import DEFAULTS, BadPolicy, NetworkPolicy, check_privileges

label = st.text("ab1-", min_size=1, max_size=3).filter(lambda t: t[0] != "-" and t[-1] != "-")
name = st.lists(label, min_size=1, max_size=4).map(".".join)
domain = name | name.map(lambda n: f"*.{n}") | st.just("*")
rule = st.fixed_dictionaries({"domain": domain, "action": st.sampled_from(["allow", "deny"])})
rules = st.lists(rule, min_size=1, max_size=8, unique_by=lambda r: r["domain"])


def closest(given_rules: list[dict[str, Any]], asked: str) -> bool:
    """By brute force: of all rules that fit, the one that fits the most."""
    fitting = []
    for each in given_rules:
        pattern = each["domain"]
        if pattern == asked:
            fitting.append((1000, each))
        elif pattern == "*" or (pattern.startswith("*.") and asked.endswith(pattern[1:])):
            fitting.append((len(pattern), each))
    return bool(fitting) and max(fitting, key=lambda f: f[0])[1]["action"] == "allow"


@given(rules, name)
def test_the_closest_rule_decides_in_any_order(given_rules: list[dict[str, Any]], asked: str) -> None:
    expected = closest(given_rules, asked)
    assert NetworkPolicy(given_rules).allows(asked) is expected
    assert NetworkPolicy(given_rules[::-1]).allows(asked.upper() + ".") is expected


def test_no_rules_allow_everything_and_defaults_what_developers_need() -> None:
    assert NetworkPolicy([]).allows("anything.example")
    policy = NetworkPolicy([{"include": "defaults"}, {"domain": "gist.github.com", "action": "deny"}])
    assert policy.allows("github.com") and policy.allows("api.github.com")
    assert all(policy.allows(each) and policy.allows(f"x.y.{each}") for each in DEFAULTS)
    assert not policy.allows("gist.github.com") and not policy.allows("example.org")
    assert not policy.allows("notgithub.com")
    assert not NetworkPolicy([{"include": "defaults"}, {"domain": "*.github.com", "action": "deny"}]).allows(
        "api.github.com"
    )
    assert NetworkPolicy([{"domain": "bücher.example", "action": "allow"}]).allows("xn--bcher-kva.example")


@pytest.mark.parametrize(
    "bad",
    [
        {}, {"domain": "a"}, {"action": "allow"}, {"domain": "a", "action": "maybe"},
        {"domain": "a", "action": "allow", "port": 1}, {"domain": 1, "action": "allow"},
        {"domain": "", "action": "allow"}, {"domain": "a..b", "action": "allow"},
        {"domain": "a.*.b", "action": "allow"}, {"domain": "*.", "action": "allow"},
        {"domain": "http://a", "action": "allow"}, {"domain": "a b", "action": "allow"},
        {"domain": "a" * 64, "action": "allow"}, {"domain": "a\n", "action": "allow"},
        {"domain": "-a", "action": "allow"}, {"include": "everything"}, {"include": ["defaults"]},
    ],
)  # fmt: skip
def test_what_says_nothing_clear_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadPolicy, match=r"rules\[1\]"):
        NetworkPolicy([{"domain": "ok.example", "action": "allow"}, bad])


def test_contradictions_and_floods_are_refused() -> None:
    twice = [{"domain": "A.example", "action": "allow"}, {"domain": "a.example", "action": "deny"}]
    with pytest.raises(BadPolicy, match="both"):
        NetworkPolicy(list(twice))
    with pytest.raises(BadPolicy, match="too many"):
        NetworkPolicy([{"domain": "a", "action": "allow"}] * 1001)


@pytest.mark.parametrize(
    "bad",
    [{"profile": "root"}, {"devices": ["/dev/sda"]}, {"devices": "x"}, {"noNewPrivileges": 1}, {"x": 1}],
)
def test_privileges_are_checked(bad: dict[str, Any]) -> None:
    check_privileges({"profile": "minimal", "devices": ["/dev/fuse"], "noNewPrivileges": True})
    with pytest.raises(BadPolicy):
        check_privileges(bad)
