"""What a host needs from time to time, whatever its sprites do."""

from __future__ import annotations

import asyncio
import logging

from spriggan.engine.host import Host

log = logging.getLogger(__name__)

RULES_EVERY_S = 10.0
RECLAIM_EVERY = 6  # rounds


class Housekeeping:
    """Runs for as long as the engine does."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def run(self) -> None:
        """Go round after round; one that fails is not the last."""
        number = 0
        while True:
            await asyncio.sleep(RULES_EVERY_S)
            number += 1
            try:
                await asyncio.to_thread(self._keep_rules)
                if number % RECLAIM_EVERY == 0:
                    await asyncio.to_thread(self._host.pool.reclaim)
            except Exception:
                log.exception("a round of housekeeping failed")

    def _keep_rules(self) -> None:
        """Others flush all tables of a host (``systemctl restart nftables``); ours must stand."""
        if not self._host.rules.present():
            log.warning("the host's rules for sprites were gone and are set again")
            self._host.rules.install()
