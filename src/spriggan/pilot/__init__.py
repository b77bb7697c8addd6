"""The program beside a sprite's processes: it runs commands and touches files on request.

It stands alone: only ``wire`` and ``linux`` are imported, so that it can run where the rest
of the product is not.
"""

import os

MAX_HEAD = 1 << 20  # bytes of a request's head; a command line is in its URL

# websockets reads its limit on a request's line when it is imported, and that is after this.
# With its default of 8 KiB a longer command line could be run by POST only.
os.environ.setdefault("WEBSOCKETS_MAX_LINE_LENGTH", str(MAX_HEAD))
