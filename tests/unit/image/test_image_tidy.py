"""What differs from build to build is taken out, and nothing else."""

from spriggan.image.tidy import tidy


def make(tree, *names):
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")


def test_tidy(tmp_path):
    make(
        tmp_path,
        *("etc/passwd", "etc/passwd-", "etc/machine-id", "usr/bin/tool", "usr/sbin/policy-rc.d"),
        *("var/cache/ldconfig/aux-cache", "var/cache/apt/pkgcache.bin", "var/cache/apt/archives/a.deb"),
        *("var/log/dpkg.log", "var/log/apt/history.log", "var/lib/dpkg/status", "var/lib/dpkg/status-old"),
        *("tmp/t", "run/lock/r", "var/lib/apt/lists/partial/p"),
    )
    (tmp_path / "tmp/away").symlink_to("/etc")
    (tmp_path / "etc/shadow").write_text("root:*:19999:0:99999:7:::\nodd\nsprite:*::\n")

    tidy(tmp_path, epoch=86400 * 100)

    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir())
    assert left == [
        *("etc/machine-id", "etc/passwd", "etc/shadow", "usr/bin/tool", "var/lib/dpkg/status"),
    ]
    assert (tmp_path / "var/log/apt").is_dir()
    assert (tmp_path / "var/cache/apt/archives").is_dir()
    assert (tmp_path / "etc/machine-id").read_bytes() == b""
    assert (tmp_path / "etc/shadow").read_text() == "root:*:100:0:99999:7:::\nodd\nsprite:*::\n"


def test_a_machine_id_that_is_a_link_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    make(tmp_path / "tree", "etc/x")
    (tmp_path / "tree/etc/machine-id").symlink_to(outside)
    tidy(tmp_path / "tree", epoch=0)
    assert outside.read_text() == "precious"


def test_directories_that_are_links_are_not_followed(tmp_path):
    make(tmp_path / "outside", "log/precious", "dpkg/status-old")
    make(tmp_path / "tree", "var/lib/x")
    (tmp_path / "tree/var/log").symlink_to(tmp_path / "outside/log")
    (tmp_path / "tree/var/lib/dpkg").symlink_to(tmp_path / "outside/dpkg")
    tidy(tmp_path / "tree", epoch=0)
    assert (tmp_path / "outside/log/precious").exists()
    assert (tmp_path / "outside/dpkg/status-old").exists()
