"""The server's way to change a sprite's policies while it runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spriggan.pilot.inner.egress import Egress
from spriggan.pilot.process import Container
from spriggan.pilot.request import error_response
from spriggan.wire.policy import BadPolicy, NetworkPolicy, check_privileges
from spriggan.wire.spec import Policies


class PolicyApi:
    """``PUT /pilot/policies``: all of them at once, as in the specification."""

    def __init__(self, container: Container, egress: Egress) -> None:
        self._container = container
        self._egress = egress

    def routes(self) -> list[BaseRoute]:
        return [Route("/pilot/policies", self.put, methods=["PUT"])]

    async def put(self, request: Request) -> Response:
        """Network rules are in force when this answers; privileges count for commands started from then on."""
        try:
            given = Policies.from_dict(await request.json())
            network = NetworkPolicy(list(given.network))
            check_privileges(given.privileges)
        except (BadPolicy, ValueError, AttributeError, TypeError) as error:
            return error_response(400, f"these are no policies: {error}")
        self._container.privileges = given.privileges
        try:
            await self._egress.apply(network)
        except OSError as error:
            return error_response(500, f"the network policy is not in force: {error}")
        self._container.publish_policy(given.network)
        return JSONResponse({})
