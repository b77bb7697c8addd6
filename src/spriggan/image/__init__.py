"""Images: ordered lists of read-only, digest-addressed layers that all sprites of a host share."""

from spriggan.image.image import DEFAULT_NAME, Image, Layer
from spriggan.image.progress import Progress, Step
from spriggan.image.store import ImageStore, Removed

__all__ = ["DEFAULT_NAME", "Image", "ImageStore", "Layer", "Progress", "Removed", "Step"]
