"""A fork is somebody else: names, ids and keys of its own."""

from __future__ import annotations

from typing import Any

import serving


def test_host_keys_machine_id_and_name(server: serving.Server, sprite: Any) -> None:
    serving.run(sprite, "sudo mkdir -p /etc/ssh; sudo touch /etc/ssh/sshd_config")
    serving.run(sprite, "echo secret | sudo tee /etc/ssh/ssh_host_ed25519_key")
    serving.run(sprite, "sudo ln -s /etc/hostname /etc/ssh/ssh_host_link")
    with server.http() as http:
        assert http.post(f"/v1/sprites/{sprite.name}/fork", json={"name": "other-one"}).status_code == 201
    fork = server.client().get_sprite("other-one")
    try:
        look = "hostname; cat /etc/hostname; ls /etc/ssh; grep -c other-one /etc/hosts"
        assert serving.run(fork, look) == "other-one\nother-one\nsshd_config\n2"
        ours, theirs = (serving.run(s, "cat /etc/machine-id") for s in (sprite, fork))
        assert ours != theirs and len(theirs) == 32
        assert "secret" in serving.run(sprite, "sudo cat /etc/ssh/ssh_host_ed25519_key")
    finally:
        fork.delete()
