"""The record of a sprite that is to be: what was asked for, checked, and what the server adds."""

from __future__ import annotations

import asyncio
import uuid

from spriggan.engine import rows, values
from spriggan.engine.core import Core
from spriggan.engine.records import URL_SETTINGS_DEFAULT, CreateRequest, SpriteRow
from spriggan.errors import InvalidValue


async def draft(core: Core, request: CreateRequest) -> SpriteRow:
    """Raises ``InvalidValue``, or ``NotFound`` if there is no such image."""
    options, host, now = core.options, core.host, rows.now()
    name = values.name(request.name)
    box = values.box(request.box, options, tuple(host.boxes))
    config = values.config(request.config, options)
    labels = values.labels(request.labels)
    environment = values.environment(request.environment)
    url_settings = values.url_settings(request.url_settings, URL_SETTINGS_DEFAULT)
    wanted = options.default_image if request.image is None else request.image
    if not isinstance(wanted, str):
        raise InvalidValue("image must be a name", hint="see what there is with: spriggan image list")
    image = await asyncio.to_thread(host.images.get, wanted)
    return SpriteRow(
        id=new_id(),
        name=name,
        created_at=now,
        updated_at=now,
        image=image.name,
        layers=image.digests,
        user=image.user,
        shell=image.shell,
        image_environment=dict(image.environment),
        working_dir=image.working_dir,
        box=box,
        config=config,
        labels=labels,
        environment=environment,
        url_settings=url_settings,
    )


def new_id() -> str:
    return f"sprite-{uuid.uuid4()}"
