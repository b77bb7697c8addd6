"""Images made elsewhere: read with distrust, and turned into layers like our own."""

from spriggan.image.importing.importing import STANDARD_INPUT, Request
from spriggan.image.importing.limits import Limits

__all__ = ["STANDARD_INPUT", "Limits", "Request"]
