"""Policies of a sprite: what it may reach, what its commands may do, what it may use.

They are set from outside only, are in force when that is acknowledged, and stay with the sprite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spriggan.engine import rows, values
from spriggan.engine.core import Core
from spriggan.engine.live import Live
from spriggan.engine.records import SpriteRow
from spriggan.engine.waking import UP, Waking, limits_of, policies_of
from spriggan.errors import Broken, InvalidRequest, Unavailable
from spriggan.wire.policy import BadPolicy, NetworkPolicy, check_privileges
from spriggan.wire.spec import SpriteSpec

NETWORK, PRIVILEGES, RESOURCES = "network", "privileges", "resources"


class Policies:
    """Reads and changes the policies of sprites."""

    def __init__(self, core: Core, waking: Waking) -> None:
        self._core = core
        self._waking = waking

    async def get(self, name: str, kind: str) -> dict[str, Any]:
        """The policy as it was set; without one, what is in force all the same."""
        row = await self._core.row(name)
        found: dict[str, Any] = row.policies.get(kind) or _in_force(row, kind)
        return found

    async def set(self, name: str, kind: str, given: Mapping[str, Any]) -> None:
        """Raises ``InvalidRequest`` or ``InvalidValue``, and ``Conflict`` if more memory is in use."""
        await self._core.row(name)
        policy = self._checked(kind, given)
        await self._core.complete(self._change(name, kind, policy))

    async def clear(self, name: str, kind: str) -> None:
        """Back to what a new sprite has."""
        await self._core.row(name)
        await self._core.complete(self._change(name, kind, None))

    async def catch_up(self, row: SpriteRow, live: Live, spec: SpriteSpec) -> bool:
        """Put in force what was stored while its server was dying; whether there was anything."""
        box = self._waking.box(row)
        late = spec.policies != policies_of(row)
        if late:
            await self._waking.attend(row, live)
            if live.phase not in UP:
                return False  # the next start has them
            await box.set_policies(row.id, policies_of(row))
        if spec.limits != limits_of(row):
            await asyncio.to_thread(box.limit, row.id, limits_of(row))
            late = True
        return late

    def _checked(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            if kind == NETWORK:
                NetworkPolicy(given["rules"])
            elif kind == PRIVILEGES:
                check_privileges(given)
        except BadPolicy as error:
            raise InvalidRequest(
                f"invalid policy: {error}", hint="see docs/policies.md for what may be said"
            ) from error
        if kind == RESOURCES:
            values.memory_limit(given, self._core.options)
        return dict(given)

    async def _change(self, name: str, kind: str, policy: dict[str, Any] | None) -> None:
        async with self._core.exclusively(name) as (row, live):
            policies = {key: value for key, value in row.policies.items() if key != kind}
            if policy is not None:
                policies[kind] = policy
            changed = replace(row, policies=policies)
            if kind == RESOURCES and live.phase in UP:  # first, for it may be refused
                await asyncio.to_thread(self._waking.box(row).limit, row.id, limits_of(changed))
            await self._core.update(row.id, policies=policies, updated_at=rows.now())
            if kind != RESOURCES:
                await self._enforce(changed, live)

    async def _enforce(self, row: SpriteRow, live: Live) -> None:
        await self._waking.attend(row, live)
        if live.phase not in UP:
            return
        try:
            await self._waking.box(row).set_policies(row.id, policies_of(row))
        except Broken as error:
            raise Unavailable(
                f"the policy is kept, but not in force yet: {error.message}",
                hint=f"send it again, or restart the sprite: spriggan stop {row.name}",
            ) from error


def _in_force(row: SpriteRow, kind: str) -> dict[str, Any]:
    if kind == NETWORK:
        return {"rules": []}
    if kind == PRIVILEGES:
        return {"profile": "", "devices": [], "noNewPrivileges": False}
    return {"memory": {"limit_mb": row.config.ram_mb, "autoscale": False}}
