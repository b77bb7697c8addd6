"""What a pilot tells the server that waits for its sprite."""

from __future__ import annotations

import os

import pytest

from spriggan.pilot.report import Report


def test_only_the_first_words_are_written_and_nobody_elses_descriptor_gets_more() -> None:
    reading, writing = os.pipe()
    other, successor = os.pipe()
    report = Report(writing)
    report.still_wanted()
    assert report.say({"ok": True})
    os.dup2(successor, writing)  # what a program opens next may have the same number
    try:
        assert not report.say({"error": "the container ended"})
        with pytest.raises(OSError, match="died"):
            report.still_wanted()
        assert os.read(reading, 4096) == b'{"ok": true}\n'
        os.set_blocking(other, False)
        with pytest.raises(BlockingIOError):
            os.read(other, 4096)
    finally:
        for fd in (reading, writing, other, successor):
            os.close(fd)


def test_nobody_waits_any_more() -> None:
    reading, writing = os.pipe()
    report = Report(writing)
    os.close(reading)
    with pytest.raises(OSError, match="died"):
        report.still_wanted()
    assert not report.say({"ok": True})
