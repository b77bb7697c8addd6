"""What a pilot is told when it starts: everything about one sprite, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

PROTOCOL = 1


@dataclass(frozen=True)
class Uplink:
    """The link that leads out of a sprite's router namespace, which holds ``interface`` already."""

    interface: str
    ipv4: str  # address with prefix length, e.g. "169.254.1.3/31"
    ipv4_gateway: str
    ipv6: str
    ipv6_gateway: str
    mtu: int


@dataclass(frozen=True)
class Limits:
    """What a sprite may use at most."""

    memory_mb: int = 2048
    cpus: float = 0.0  # 0: all cores
    pids: int = 4096


@dataclass(frozen=True)
class User:
    """Who commands run as when nothing else is said."""

    name: str = "sprite"  # or a number; perhaps with ":" and a group's name or number
    shell: str = "/bin/zsh"  # empty: there is none
    directory: str = ""  # where commands start; empty: at home


@dataclass(frozen=True)
class Policies:
    """What is set from outside and can be changed while the sprite runs; see ``wire.policy``."""

    network: list[dict[str, Any]] = field(default_factory=list)  # rules; none: unrestricted
    privileges: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Policies:
        return cls(network=data.get("network", []), privileges=data.get("privileges", {}))


@dataclass(frozen=True)
class SpriteSpec:
    """One sprite, as its pilot sees it. Paths are the host's."""

    sprite_id: str
    name: str  # empty: a spare's, which becomes a sprite some time
    hostname: str
    run_dir: str  # runtime files: pilot.sock, pilot.log, keeper
    containers_dir: str  # the OCI runtime's state of all sprites, which share its compiled seccomp filter
    spool_dir: str  # output of sessions
    disk: str  # ext4 image file
    layers: list[str]  # mounted layer roots, topmost first
    first_id: int  # host uid and gid of the sprite's root
    cgroup: str  # path below every hierarchy's root: <cgroup>/box/inner is the sprite's
    uplink: Uplink
    limits: Limits = field(default_factory=Limits)
    user: User = field(default_factory=User)
    environment: dict[str, str] = field(default_factory=dict)
    server_socket: str = ""  # the server's unix socket, for what inside asks of the engine
    policies: Policies = field(default_factory=Policies)
    capability: str = ""  # the token that is good for this sprite only
    checkpoints_dir: str = ""  # of this sprite: <id>/disk.img below it
    protocol: int = PROTOCOL

    @property
    def is_spare(self) -> bool:
        return not self.name

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> SpriteSpec:
        """Raises ``ValueError`` if ``text`` is not a specification of this protocol."""
        data: dict[str, Any] = json.loads(text)
        if data.get("protocol") != PROTOCOL:
            raise ValueError(f"pilot protocol {data.get('protocol')!r}, this pilot speaks {PROTOCOL}")
        data["uplink"] = Uplink(**data["uplink"])
        data["limits"] = Limits(**data["limits"])
        data["user"] = User(**data["user"])
        data["policies"] = Policies.from_dict(data.get("policies", {}))
        return cls(**data)
