"""Which of a host's apt sources are its distribution's, and what the image gets to know of them."""

import pytest

from spriggan.errors import MissingCapability
from spriggan.image.sources import Distribution, Source, host_sources, stanzas

BOOKWORM = Distribution("debian", "bookworm")
NOBLE = Distribution("ubuntu", "noble")


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_one_line_format(etc):
    (etc / "sources.list").write_text(
        "# deb http://off.example.org/debian bookworm main\n"
        "deb http://deb.debian.org/debian bookworm main contrib # why\n"
        "deb [arch=amd64,i386 signed-by=/k.gpg trusted=yes] http://deb.debian.org/debian "
        "bookworm-updates main\n"
        "deb-src http://deb.debian.org/debian bookworm main\n"
        "deb http://security.debian.org/debian-security bookworm-security main\n"
        "deb http://ppa.example.org nodistro main\n"
        "deb http://deb.debian.org/debian bookworm-backports main\n"
        "deb http://flat.example.org ./\n"
        "deb\n"
        "nonsense\n"
    )
    assert host_sources(BOOKWORM, etc) == [
        Source("http://deb.debian.org/debian", "bookworm", "main contrib"),
        Source(
            "http://deb.debian.org/debian",
            "bookworm-updates",
            "main",
            (("Architectures", "amd64 i386"), ("Signed-By", "/k.gpg"), ("Trusted", "yes")),
        ),
        Source("http://security.debian.org/debian-security", "bookworm-security", "main"),
    ]


def test_deb822_format(etc):
    (etc / "sources.list.d" / "ubuntu.sources").write_text(
        "# the archive\n"
        "Types: deb deb-src\n"
        "URIs: http://archive.ubuntu.com/ubuntu/\n"
        "Suites: noble noble-updates noble-backports\n"
        "Components: main universe\n"
        "Signed-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
        "# a comment inside\n"
        " .\n"
        " AAAA\n"
        "\n"
        "Enabled: no\n"
        "Types: deb\n"
        "URIs: http://off.example.org/ubuntu\n"
        "Suites: noble\n"
        "Components: main\n"
        "\n\n"
        "Types: deb-src\n"
        "URIs: http://src.example.org/ubuntu\n"
        "Suites: noble\n"
        "Components: main\n"
    )
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA"
    assert host_sources(NOBLE, etc) == [
        Source("http://archive.ubuntu.com/ubuntu/", suite, "main universe", (("Signed-By", key),))
        for suite in ("noble", "noble-updates")
    ]


def test_the_text_reads_back_as_what_it_was_written_from(etc):
    sources = [
        Source("http://a.example.org/debian", "bookworm", "main", (("Signed-By", "\n KEY\n ."),)),
        Source("http://b.example.org/debian", "bookworm-security", "main contrib"),
    ]
    (etc / "sources.list.d" / "x.sources").write_text(stanzas(sources))
    assert host_sources(BOOKWORM, etc) == sources


def test_files_that_apt_ignores_are_ignored(etc):
    (etc / "sources.list.d" / "x.list.disabled").write_text("deb http://a.example.org bookworm main\n")
    (etc / "sources.list.d" / "x.list").mkdir()
    assert host_sources(BOOKWORM, etc) == []


def test_debian_aliases_become_the_code_name_in_the_image(etc):
    (etc / "sources.list").write_text("deb http://deb.debian.org/debian stable-updates main\n")
    (source,) = host_sources(BOOKWORM, etc)
    assert source.in_image(BOOKWORM).suite == "bookworm-updates"
    assert host_sources(NOBLE, etc) == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:3142/debian",
        "http://192.168.1.5/debian",
        "http://[fd00::1]/debian",
        "http://mirror/debian",
        "http://mirror.lan/debian",
        "https://user:secret@mirror.example.org/debian",
        "mirror+file:/etc/apt/mirrors/debian.list",
        "file:/srv/debian",
        "http://[/debian",
    ],
)
def test_mirrors_that_a_sprite_cannot_reach_are_replaced(uri):
    image = Source(uri, "bookworm-security", "main", (("Signed-By", "/root/key.gpg"),)).in_image(BOOKWORM)
    assert image.uri == "http://deb.debian.org/debian-security"
    assert "secret" not in image.stanza()
    assert image.others == (("Signed-By", BOOKWORM.keyring),)


def test_public_mirrors_are_kept():
    source = Source("https://ftp.fau.de/debian", "bookworm", "main", (("Trusted", "yes"),))
    assert source.in_image(BOOKWORM).uri == "https://ftp.fau.de/debian"
    assert "Trusted" not in source.in_image(BOOKWORM).stanza()


def test_the_distribution_of_a_host(tmp_path):
    release = tmp_path / "os-release"
    release.write_text('PRETTY_NAME="Debian"\nID=debian\nVERSION_CODENAME="trixie"\n')
    assert Distribution.of_host(release) == Distribution("debian", "trixie")
    for text in ("ID=fedora\nVERSION_CODENAME=x\n", "ID=debian\n", "", "\0\xff="):
        release.write_text(text)
        with pytest.raises(MissingCapability) as error:
            Distribution.of_host(release)
        assert error.value.hint
    with pytest.raises(MissingCapability):
        Distribution.of_host(tmp_path / "none")
