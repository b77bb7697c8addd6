"""The zygote: a process that has imported all a pilot needs, and forks one on request.

``python -m spriggan.pilot.zygote FD RUNTIME_DIR``, where descriptor FD is a SOCK_SEQPACKET socket. A
request is the path of a sprite's specification, with two descriptors: the network namespace that
becomes the pilot's (the uplink is in it), and a pipe on which the pilot reports one line of JSON
when it is up or why it is not. The reply is the pilot's pid; a pilot whose pid could not be told ends
before it has done anything, so that whoever gets no reply may ask another zygote. The zygote ends
when the socket's other end closes; its pilots go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from spriggan import faults
from spriggan.linux import heap, process
from spriggan.pilot import main as pilot
from spriggan.pilot.inner.kit import Kit


def main() -> None:
    """Serve until the other end of the socket closes."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    runtime = Path(sys.argv[2])
    os.setsid()
    process.set_name("spriggan-zygote")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for pilots here
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kit = Kit.make(runtime / "pilot")
    pilot.rehearse(kit)
    heap.settle()
    faults.point("zygote:loaded")
    connection.send(b"ready")
    while True:
        request, fds, _, _ = socket.recv_fds(connection, 4096, 2)
        if not request:
            return
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            connection.close()
            ours.close()
            if theirs.recv(1):
                theirs.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                pilot.run(Path(request.decode()), netns=fds[0], report=fds[1], kit=kit)
            os._exit(0)
        theirs.close()
        for fd in fds:
            os.close(fd)
        faults.point("zygote:forked")
        with ours, contextlib.suppress(OSError):  # one of the two is gone, which the other notices
            connection.send(str(pid).encode())
            faults.point("zygote:replied")
            ours.send(b".")


if __name__ == "__main__":
    main()
