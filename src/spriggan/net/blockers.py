"""Who drops forwarded packets on this host: Docker, ufw, firewalld, or rules of somebody's own.

An accept in our table does not help: a packet must pass every table. Only the owner of a
table can let ours through, so this says who it is and what to run.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

_LEGACY = {
    "ip": ("iptables-legacy-save", Path("/proc/thread-self/net/ip_tables_names")),
    "ip6": ("ip6tables-legacy-save", Path("/proc/thread-self/net/ip6_tables_names")),
}
_OURS = "spriggan_"


class Blocker(NamedTuple):
    """Somebody's forward rules that stop sprites, and the commands that let them through."""

    who: str
    fix: str


def find(ruleset: Iterable[dict[str, Any]], prefix: str) -> list[Blocker]:
    """Look through ``nft -j list ruleset`` (rules made by iptables-nft are part of it).

    ``prefix`` is what the names of our interfaces start with. A table with a rule that lets
    our interfaces through is taken as settled by its owner.
    """
    chains: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rules: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in ruleset:
        for kind, found in (("chain", chains), ("rule", rules)):
            if kind in entry:
                key = (entry[kind]["family"], entry[kind]["table"])
                found.setdefault(key, []).append(entry[kind])
    blockers = []
    for (family, table), members in chains.items():
        if family not in ("inet", "ip", "ip6") or table.startswith(_OURS):
            continue
        own_rules = rules.get((family, table), [])
        if _drops_forwarded(members, own_rules) and not any(_lets_through(r, prefix) for r in own_rules):
            names = {chain["name"] for chain in members}
            blockers.append(_name(family, table, names, prefix))
    return blockers


def find_legacy(prefix: str) -> list[Blocker]:
    """Look through the older kernel tables of iptables-legacy, which nft does not show."""
    blockers = []
    for family, (program, loaded) in _LEGACY.items():
        # Asking would load the module: ask only where the table is in use already.
        if not loaded.exists() or "filter" not in loaded.read_text().split() or not shutil.which(program):
            continue
        saved = subprocess.run([program, "-t", "filter"], capture_output=True, text=True, check=False)
        if _legacy_blocks(saved.stdout, prefix):
            names = {line.split()[0][1:] for line in saved.stdout.splitlines() if line.startswith(":")}
            blockers.append(_name(family, "filter", names, prefix, legacy=True))
    return blockers


def _drops_forwarded(chains: list[dict[str, Any]], rules: list[dict[str, Any]]) -> bool:
    for chain in chains:
        if chain.get("hook") != "forward" or chain.get("type") != "filter":
            continue
        if chain.get("policy") == "drop":
            return True
        in_chain = [rule for rule in rules if rule["chain"] == chain["name"]]
        # firewalld: the policy is accept, but the last rule turns everything away.
        if in_chain and _turns_away(in_chain[-1]):
            return True
    return False


def _turns_away(rule: dict[str, Any]) -> bool:
    """Whether the rule rejects or drops whatever reaches it."""
    statements = [next(iter(statement)) for statement in rule["expr"]]
    return statements[-1:] in (["drop"], ["reject"]) and not {"match", "xt"} & set(statements)


def _lets_through(rule: dict[str, Any], prefix: str) -> bool:
    matched = False
    for statement in rule["expr"]:
        if "drop" in statement or "reject" in statement or _is_target(statement, "REJECT"):
            return False
        match = statement.get("match", {})
        if match.get("op") == "==" and match.get("left") == {"meta": {"key": "iifname"}}:
            matched = _covers(match["right"], prefix)
    return matched


def _is_target(statement: dict[str, Any], name: str) -> bool:
    return bool((statement.get("xt") or {}).get("name") == name)


def _covers(pattern: object, prefix: str) -> bool:
    return isinstance(pattern, str) and pattern.endswith("*") and fnmatchcase(f"{prefix}0", pattern)


def _legacy_blocks(saved: str, prefix: str) -> bool:
    lines = saved.splitlines()
    if not any(line.startswith(":FORWARD DROP") for line in lines):
        return False
    for line in lines:
        words = shlex.split(line) if line.startswith("-A ") else []
        inputs = [after for word, after in pairwise(words) if word == "-i"]
        if words[-2:] == ["-j", "ACCEPT"] and any(_covers(i.replace("+", "*"), prefix) for i in inputs):
            return False
    return True


def _name(family: str, table: str, chains: set[str], prefix: str, *, legacy: bool = False) -> Blocker:
    ours = f"{prefix}+"  # iptables' way to write a prefix
    iptables = {"ip": "iptables", "ip6": "ip6tables"}.get(family, "")
    if iptables and legacy:
        iptables += "-legacy"
    if iptables and any(name.startswith("ufw6-" if family == "ip6" else "ufw-") for name in chains):
        return Blocker("ufw", f"ufw route allow in on {ours}")
    if table == "firewalld":
        zone, policy = "--zone=spriggan", "--policy=spriggan-out"
        commands = (
            "--permanent --new-zone=spriggan",
            f"--permanent {zone} --add-interface={ours}",
            "--permanent --new-policy=spriggan-out",
            f"--permanent {policy} --add-ingress-zone=spriggan --add-egress-zone=ANY --set-target=ACCEPT",
            "--reload",
        )
        return Blocker("firewalld", " && ".join(f"firewall-cmd {command}" for command in commands))
    if iptables:
        docker = "DOCKER-USER" in chains
        chain = "DOCKER-USER" if docker else "FORWARD"
        fix = (
            f"{iptables} -I {chain} -i {ours} -j ACCEPT && "
            f"{iptables} -I {chain} -o {ours} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
        )
        return Blocker(f"Docker ({iptables})" if docker else f"{iptables} FORWARD policy", fix)
    return Blocker(
        f"nftables table {family} {table}",
        f'add to its forward chain, before what drops: iifname "{prefix}*" accept; '
        f'oifname "{prefix}*" ct state established,related accept',
    )
