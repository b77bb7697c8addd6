"""Policies, set with the official client and by HTTP, and what they do inside."""

from __future__ import annotations

import re
from typing import Any

from sprites.policy import get_network_policy, update_network_policy
from sprites.types import NetworkPolicy, PolicyRule

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves

RULES = [
    {"include": "defaults"},
    {"domain": "*.npmjs.org", "action": "allow"},
    {"domain": "*", "action": "deny"},
]


@proves("policy/network: comes back as it was set, in its order", PYTHON)
@proves("policy/network: 204; a wrong one is 400 and changes nothing", PLAIN)
def test_a_network_policy_comes_back_as_it_was_set(server: serving.Server, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}/policy/network"
    with server.http() as http:
        assert http.get(path).json() == {"rules": []}
        assert http.post(path, json={"rules": RULES}).status_code == 204
        assert http.get(path).json() == {"rules": RULES}
        for bad in ({}, {"rules": [{"domain": "x"}]}, {"rules": "x"}, {"rules": [1]}):
            answer = http.post(path, json=bad)
            assert answer.status_code == 400 and answer.json()["error"], answer.text
        assert http.get(path).json() == {"rules": RULES}
        assert http.get("/v1/sprites/nobody/policy/network").status_code == 404
    policy = NetworkPolicy(rules=[PolicyRule(domain="example.org", action="allow")])
    update_network_policy(sprite, policy)
    assert get_network_policy(sprite) == policy


@proves("policy/network: in force at once, out of the reach of the inside", PLAIN)
def test_a_network_policy_holds_inside_and_outlives_pilot_server_and_fork() -> None:
    lookup = "getent ahosts denied.example >/dev/null; echo $?; "
    lookup += "python3 -c 'import socket; socket.create_connection((\"203.0.113.1\", 80), timeout=1)' 2>&1"
    with serving.server() as own:
        own.start()
        sprite = own.client().create_sprite("walled")

        def error() -> str:
            return serving.run(sprite, lookup, check=False).splitlines()[-1]

        with own.http() as http:
            path = "/v1/sprites/walled/policy/network"
            body = {"rules": [{"domain": "allowed.example", "action": "allow"}]}
            serving.run(sprite, "true")
            assert http.post(path, json=body).status_code == 204
            assert "No route to host" in error() or "Permission denied" in error()
            refused = error()
            own.cli("stop", "walled")
            assert error() == refused
            own.kill()
            own.start()
            assert error() == refused
            assert http.post("/v1/sprites/walled/fork", json={"name": "forked"}).status_code == 201
            assert http.get("/v1/sprites/forked/policy/network").json() == body
            inside = "sudo nft flush ruleset; sudo ip route; true"
            serving.run(sprite, inside)
            assert error() == refused
            assert http.post(path, json={"rules": []}).status_code == 204
            assert error() != refused


@proves("policy/privileges: for commands started afterwards", PLAIN)
def test_privileges_count_for_commands_started_afterwards(server: serving.Server, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}/policy/privileges"
    capabilities = "sudo grep CapEff /proc/self/status | cut -f2"
    full = int(serving.run(sprite, capabilities), 16)
    with server.http() as http:
        assert http.get(path).json() == {"profile": "", "devices": [], "noNewPrivileges": False}
        assert http.post(path, json={"profile": "standard"}).status_code == 204
        standard = int(serving.run(sprite, capabilities), 16)
        assert standard and standard & ~full == 0 and standard != full
        assert not standard & 1 << 21  # SYS_ADMIN
        mounted = sprite.run("sudo", "mount", "-t", "tmpfs", "x", "/mnt", capture_output=True)
        assert mounted.returncode != 0
        assert http.post(path, json={"profile": "minimal"}).status_code == 204
        assert int(serving.run(sprite, "grep CapBnd /proc/self/status | cut -f2"), 16) == 0
        assert http.post(path, json={"noNewPrivileges": True}).status_code == 204
        assert serving.run(sprite, "grep NoNewPrivs /proc/self/status | cut -f2") == "1"
        assert serving.run(sprite, "sudo true 2>/dev/null || echo no", check=False).startswith("no")
        for bad in ({"profile": "x"}, {"devices": ["/dev/sda"]}, {"noNewPrivileges": "yes"}):
            assert http.post(path, json=bad).status_code == 400
        http.post(path, json={"profile": "standard", "devices": ["/dev/fuse"]})
        http.post(f"/v1/sprites/{sprite.name}/restart")
        assert serving.run(sprite, "ls -d /dev/fuse /dev/net/tun 2>/dev/null", check=False) == "/dev/fuse"
        assert http.delete(path).status_code == 204
        assert int(serving.run(sprite, capabilities), 16) == full


@proves("policy/resources: a memory limit counts at once", PLAIN)
def test_a_memory_limit_counts_at_once(server: serving.Server, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}/policy/resources"
    eat = "python3 -c 'x = bytearray(300 << 20); print(len(x) >> 20)'"
    with server.http() as http:
        assert http.get(path).json() == {"memory": {"limit_mb": 2048, "autoscale": False}}
        assert serving.run(sprite, eat) == "300"
        assert http.post(path, json={"memory": {"limit_mb": 200, "autoscale": True}}).status_code == 204
        assert http.get(path).json() == {"memory": {"limit_mb": 200, "autoscale": True}}
        assert sprite.run("sh", "-c", eat, capture_output=True).returncode == 137
        assert http.post(path, json={"memory": {"limit_mb": 1024}}).status_code == 204
        assert serving.run(sprite, eat) == "300"
        for bad in (
            {"memory": {"limit_mb": 1}},
            {"memory": {"limit_mb": 10**9}},
            {"memory": 1},
        ):
            assert http.post(path, json=bad).status_code in (400, 422), bad
        assert http.get(path).json()["memory"]["limit_mb"] == 1024
        assert http.delete(path).status_code == 204
        assert http.get(path).json()["memory"]["limit_mb"] == 2048


@proves("policy/resources: 409 for less than is in use", PLAIN)
def test_a_limit_below_what_is_in_use_is_refused(server: serving.Server, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}/policy/resources"
    serving.run(sprite, "sudo sh -c 'head -c 300000000 /dev/zero > /dev/shm/held'")
    with server.http() as http:
        answer = http.post(path, json={"memory": {"limit_mb": 128}})
        assert answer.status_code == 409 and re.search(r"use \d+ MiB now", answer.json()["error"])
        assert http.get(path).json()["memory"]["limit_mb"] == 2048
    assert serving.run(sprite, "stat -c %s /dev/shm/held") == "300000000"


@proves("policy/network: comes back as it was set, in its order", JAVASCRIPT)
def test_network_policies_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        say((await sprite.getNetworkPolicy()).rules);
        await sprite.updateNetworkPolicy({rules: args.rules});
        say((await sprite.getNetworkPolicy()).rules);
        try { await sprite.updateNetworkPolicy({rules: [{domain: "x"}]}); } catch (error) { say(error.message); }
        say((await sprite.getNetworkPolicy()).rules.length);
    """
    first, rules, refused, count = nodejs.run(server, sprite, script, rules=RULES)
    assert (first, rules, count) == ([], RULES, 3) and "rules[0]" in refused


@proves("policy/privileges: for commands started afterwards", JAVASCRIPT)
def test_privileges_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        const status = async () => (await sprite.execFile("grep", ["NoNewPrivs", "/proc/self/status"])).stdout.trim();
        say([await sprite.getPrivilegesPolicy(), await status()]);
        await sprite.updatePrivilegesPolicy({profile: "standard", devices: ["/dev/fuse"], noNewPrivileges: true});
        say([await sprite.getPrivilegesPolicy(), await status()]);
        say(await fails(sprite.updatePrivilegesPolicy({profile: "x"})) !== null);
        await sprite.deletePrivilegesPolicy();
        say([await sprite.getPrivilegesPolicy(), await status()]);
    """
    free = {"profile": "", "devices": [], "noNewPrivileges": False}
    walled = {"profile": "standard", "devices": ["/dev/fuse"], "noNewPrivileges": True}
    assert nodejs.run(server, sprite, script) == [
        [free, "NoNewPrivs:\t0"],
        [walled, "NoNewPrivs:\t1"],
        True,
        [free, "NoNewPrivs:\t0"],
    ]


@proves("policy/resources: a memory limit counts at once", JAVASCRIPT)
def test_resources_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        const eat = ["-c", "python3 -c 'x = bytearray(300 << 20)' 2>/dev/null; echo $?"];
        const eaten = async () => (await sprite.execFile("sh", eat)).stdout.trim();
        say([(await sprite.getResourcesPolicy()).memory, await eaten()]);
        await sprite.updateResourcesPolicy({memory: {limitMB: 200, autoscale: true}});
        say([(await sprite.getResourcesPolicy()).memory, await eaten()]);
        say(await fails(sprite.updateResourcesPolicy({memory: {limitMB: 1}})) !== null);
        await sprite.deleteResourcesPolicy();
        say([(await sprite.getResourcesPolicy()).memory, await eaten()]);
    """
    free = {"limitMB": 2048, "autoscale": False}
    assert nodejs.run(server, sprite, script) == [
        [free, "0"],
        [{"limitMB": 200, "autoscale": True}, "137"],
        True,
        [free, "0"],
    ]
