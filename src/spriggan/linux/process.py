"""Processes: subreaper, descriptors of processes, and who is who."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import libc

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


def set_child_subreaper() -> None:
    """Orphaned descendants of this process become its children, so that it can wait for them."""
    libc.call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, what="prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends. Not inherited by children."""
    libc.call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0, what="prctl(PR_SET_PDEATHSIG)")


def set_dumpable() -> None:
    """After a change of ids, let the process own its files in /proc again."""
    libc.call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0, what="prctl(PR_SET_DUMPABLE)")


def set_name(name: str) -> None:
    """Name the calling process for ps and top (15 bytes at most)."""
    libc.call("prctl", PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0, what="prctl(PR_SET_NAME)")


def set_oom_score(adjustment: int) -> None:
    """Make the calling process and all it starts likelier to be killed when the machine's memory is used up."""
    Path("/proc/self/oom_score_adj").write_text(str(adjustment))


def pidfd_open(pid: int) -> int:
    """Return a descriptor of process ``pid``; the caller closes it. ESRCH if it is gone."""
    return libc.syscall("pidfd_open", pid, 0, what=f"pidfd_open({pid})")


def pid_of(pidfd: int) -> int:
    """The number of the process that ``pidfd`` refers to; -1 if it is gone."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise OSError(f"{pidfd} is no descriptor of a process")


def borrow_fd(pid: int, fd: int) -> int:
    """Return a duplicate of descriptor ``fd`` of process ``pid``; the caller closes it."""
    pidfd = pidfd_open(pid)
    try:
        return libc.syscall("pidfd_getfd", pidfd, fd, 0, what=f"pidfd_getfd({pid}, {fd})")
    finally:
        os.close(pidfd)


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child and wait for it. Raises ``OSError`` with its words and number if it failed.

    For what changes the whole process: its root, its namespaces, its ids. The process may have
    threads, so ``work`` is to make system calls and little else.
    """
    report_r, report_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            number, words = 0, str(error) or repr(error)
            if isinstance(error, OSError) and error.errno and error.strerror:
                number, words = error.errno, error.strerror
            os.write(report_w, f"{number} {words}".encode())
        finally:
            os._exit(0)
    os.close(report_w)
    with os.fdopen(report_r) as report:
        code, _, words = report.read().partition(" ")
    os.waitpid(pid, 0)
    if words:
        raise OSError(int(code), words) if int(code) else OSError(words)


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``."""
    libc.syscall("close_range", first, last, 0, what=f"close_range({first}, {last})")


def start_time(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None if there is no such process.

    Together with the pid it names a process for good, although pids are used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def write_down(file: Path, pid: int) -> None:
    """Name process ``pid`` in ``file``, for good: by its start time, too."""
    draft = file.with_name(f".{file.name}.new")
    draft.write_text(f"{pid} {start_time(pid) or 0}\n")
    draft.rename(file)


def written_down(file: Path) -> int | None:
    """The process that ``file`` names, if it has not ended."""
    try:
        return named(file.read_text())
    except (OSError, ValueError):  # not even text
        return None


def named(text: str) -> int | None:
    """The process that ``text`` names, as ``write_down`` puts it, if it has not ended."""
    try:
        pid, started = map(int, text.split())
    except ValueError:
        return None
    return pid if lives(pid, started) else None


def lives(pid: int, started: int) -> bool:
    """Whether ``pid`` is the process that started then, and has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[0] not in "ZX" and int(fields[19]) == started


def is_running(pid: int) -> bool:
    """Whether ``pid`` is a process that has not ended; one that waits to be reaped has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@dataclass(frozen=True)
class Sleep:
    """One of the times that a process sleeps. ``number`` is how often it has gone to sleep so far."""

    number: int
    name: str  # of the process, see ``set_name``


def asleep(pid: int) -> Sleep | None:
    """The sleep that the process is in; None if it runs, could run, or is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.partition(":\t")[::2] for line in status.splitlines())
    if fields["State"][0] not in "SD":
        return None
    return Sleep(int(fields["voluntary_ctxt_switches"]), fields["Name"])


def ended_children() -> list[int]:
    """Children of this process that have ended and wait to be reaped."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(f"/proc/{entry.name}/stat").read_text()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(int(entry.name))
    return found


def in_inner_namespace(pid: int) -> bool:
    """Whether ``pid`` has another number in a pid namespace below this one."""
    return len(_numbers(pid)) > 1


def inner_pid(pid: int) -> int:
    """The number of ``pid`` in the pid namespace next below this one; ``pid`` itself if it is in none."""
    numbers = _numbers(pid)
    return numbers[1] if len(numbers) > 1 else pid


def _numbers(pid: int) -> list[int]:
    """The numbers of ``pid``, from this process's pid namespace inwards; none if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return [int(word) for word in line.split()[1:]]
    return []


def signal_session(session: int, number: int, *, like: int) -> int:
    """Signal all processes of a session that are in the pid namespace of ``like``; return their number.

    By their descriptors, so that none is taken for another one that got its number meanwhile.
    """
    count = 0
    for entry in os.scandir("/proc"):
        pid = int(entry.name) if entry.name.isdigit() else 0
        if not pid or not _is_of(pid, session, like):
            continue
        try:
            fd = pidfd_open(pid)
        except OSError:
            continue
        try:
            if _is_of(pid, session, like):
                signal.pidfd_send_signal(fd, number)
                count += 1
        except ProcessLookupError:
            continue
        finally:
            os.close(fd)
    return count


def _is_of(pid: int, session: int, like: int) -> bool:
    """Whether ``pid`` has not ended, is of ``session``, and is in the pid namespace of ``like``."""
    try:
        state, _, _, sid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
        if state in "ZX" or int(sid) != session:
            return False
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{like}/ns/pid").readlink()
    except OSError:
        return False


async def ended(pid: int) -> None:
    """Wait until ``pid``, anybody's child, has ended."""
    try:
        fd = pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await ready(fd)
    finally:
        os.close(fd)


async def ready(fd: int, *, writing: bool = False) -> None:
    """Wait until ``fd`` can be read (or written) without blocking."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    (loop.add_writer if writing else loop.add_reader)(fd, resolve)
    try:
        await future
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(fd)


async def wait(pid: int) -> int:
    """Wait for child ``pid`` without blocking the event loop; return the exit code.

    128 + n for a process that signal n ended, as a shell reports it.
    """
    fd = pidfd_open(pid)
    try:
        await ready(fd)
    finally:
        os.close(fd)
    return exit_code(os.waitpid(pid, 0)[1])  # noqa: ASYNC222  it has ended


def exit_code(status: int) -> int:
    """Turn a wait status into the number a shell shows."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def kill_quietly(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
