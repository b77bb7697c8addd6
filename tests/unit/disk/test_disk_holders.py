"""Reading mountinfo."""

from pathlib import Path

from spriggan.disk import holders


def test_parse_lines_with_and_without_optional_fields():
    text = (
        "36 35 98:0 / /mnt\\040two rw,noatime master:1 shared:2 - btrfs /dev/loop3 rw,nodatacow\n"
        "37 35 0:4 / /proc rw - proc proc rw\n"
    )
    assert holders.parse(text) == [
        holders.Mount("/mnt two", "btrfs", "/dev/loop3"),
        holders.Mount("/proc", "proc", "proc"),
    ]


def test_this_machine():
    assert holders.mounted_at(Path("/proc")).fstype == "proc"
    assert holders.mounted_at(Path("/proc/self")) is None
