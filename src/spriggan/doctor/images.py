"""Images: whether there is one to start from, and whether one can be built here."""

from __future__ import annotations

import shutil

from spriggan.doctor.check import Place, install
from spriggan.doctor.finding import Finding, missing
from spriggan.image.image import DEFAULT_NAME
from spriggan.image.store import ImageStore

_BUILDERS = {"mkfs.erofs": "erofs-utils", "mmdebstrap": "mmdebstrap"}


def image(place: Place) -> Finding | str:
    """The image that sprites are made from unless another is named."""
    names = [found.name for found in ImageStore(place.data).list()]
    if DEFAULT_NAME not in names:
        return missing(
            f"there is no image {DEFAULT_NAME!r} in {place.data}",
            costs="sprites can only be created from an image that is named"
            if names
            else "no sprite can be created",
            fix=f"spriggan image build --data {place.data}",
        )
    return f"in {place.data}: {', '.join(names)}"


def builders(place: Place) -> Finding | str:
    """The programs that make an image."""
    lacking = {program: package for program, package in _BUILDERS.items() if not shutil.which(program)}
    if lacking:
        return missing(
            f"not installed: {', '.join(lacking)}",
            costs="images cannot be built here",
            fix=install(" ".join(lacking.values())),
        )
    return f"with {' and '.join(_BUILDERS)}"
