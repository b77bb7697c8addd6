"""autofs: a directory whose entries are mounted when somebody first looks at them.

The kernel makes whoever looks wait, and tells the daemon the name; the process group of the daemon
is passed over. See Documentation/filesystems/autofs.rst and include/uapi/linux/auto_fs.h, version 5.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux.mount import mount

AUTOFS_IOC_READY = 0x9360
AUTOFS_IOC_FAIL = 0x9361
# From include/uapi/linux/auto_dev-ioctl.h: commands of the device, and the number that it has.
AUTOFS_DEV_IOCTL_SETPIPEFD = 0xC0189378
AUTOFS_DEV_IOCTL_CATATONIC = 0xC0189379
DEVICE = os.makedev(10, 235)
PROTOCOL = 5
MISSING_INDIRECT = 3

# struct autofs_v5_packet up to the name; the kernel pads it to its own size.
_PACKET = struct.Struct("=iiIIQIIIII")
_MAX_PACKET = 512
# struct autofs_dev_ioctl: version, own size, the root's descriptor, one argument.
_COMMAND = struct.Struct("=IIIiII")


@dataclass(frozen=True)
class Request:
    """Somebody looks at ``name``, which is not there, and waits for the answer to ``token``."""

    token: int
    name: str


class Automount:
    """An autofs that this process answers for. Made by ``mounted`` or ``taken_over``."""

    def __init__(self, root: int, pipe: int) -> None:
        self._root = root
        self._pipe = pipe

    @classmethod
    def mounted(cls, target: Path, owner: int) -> Automount:
        """Mount an autofs at ``target`` whose root belongs to ``owner``; this process group is its daemon's.

        Raises ``OSError``: ENODEV where the kernel has no autofs.
        """
        pipe, theirs = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            options = f"fd={theirs},pgrp={os.getpgrp()},uid={owner},gid={owner}"
            versions = f"minproto={PROTOCOL},maxproto={PROTOCOL},indirect"
            mount("spriggan", target, "autofs", options=f"{options},{versions}")
            root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException:
            os.close(pipe)
            raise
        finally:
            os.close(theirs)
        return cls(root, pipe)

    @classmethod
    def taken_over(cls, target: Path, device: Path) -> Automount:
        """Answer for the autofs at ``target``, wherever else it is mounted, in place of a daemon that has ended.

        ``device`` is a node of ``DEVICE``. Raises ``OSError``.
        """
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pipe, theirs = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with open(device, "rb", buffering=0) as control:
                # Only one that knows it has no daemon takes another; this process group becomes that.
                for number, argument in (
                    (AUTOFS_DEV_IOCTL_CATATONIC, 0),
                    (AUTOFS_DEV_IOCTL_SETPIPEFD, theirs),
                ):
                    fcntl.ioctl(control, number, _COMMAND.pack(1, 0, _COMMAND.size, root, argument, 0))
        except BaseException:
            os.close(root)
            os.close(pipe)
            raise
        finally:
            os.close(theirs)
        return cls(root, pipe)

    def fileno(self) -> int:
        """Becomes readable when there are requests."""
        return self._pipe

    def requests(self) -> Iterator[Request]:
        """What is asked for now."""
        while True:
            try:
                packet = os.read(self._pipe, _MAX_PACKET)
            except BlockingIOError:
                return
            if not packet:
                return
            _, kind, token, _, _, _, _, _, _, length = _PACKET.unpack_from(packet)
            if kind == MISSING_INDIRECT:
                yield Request(token, os.fsdecode(packet[_PACKET.size : _PACKET.size + length]))
            else:
                self.answer(Request(token, ""), there=False)

    def answer(self, request: Request, *, there: bool) -> None:
        """Let go who waits: the entry is mounted, or there is no such entry."""
        fcntl.ioctl(self._root, AUTOFS_IOC_READY if there else AUTOFS_IOC_FAIL, request.token)
