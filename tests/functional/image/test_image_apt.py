"""apt on mirrors made by the test: whose packages an image may hold, and what its key depends on."""

import hashlib
import shutil
from functools import partial

import pytest

from spriggan.errors import Broken, MissingCapability
from spriggan.image import apt as apt_module
from spriggan.image import sources
from spriggan.image.apt import Apt
from spriggan.image.command import Runner
from spriggan.image.recipe import Recipe
from spriggan.image.sources import Distribution

BOOKWORM = Distribution("debian", "bookworm")


@pytest.fixture(autouse=True)
def needs_apt():
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")


def mirror(directory, *, suite="bookworm", origin="Debian", version="1.0"):
    """Make an archive that holds one package, and return its line for sources.list."""
    packages = (
        f"Package: tool\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\nSize: 1\n"
        f"Filename: pool/tool.deb\nSHA256: {'0' * 64}\nDescription: none\n\n"
    )
    dist = directory / "dists" / suite
    for architecture in ("amd64", "arm64"):
        place = dist / f"main/binary-{architecture}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "Packages").write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    entries = "".join(
        f" {digest} {len(packages)} main/binary-{architecture}/Packages\n"
        for architecture in ("amd64", "arm64")
    )
    (dist / "Release").write_text(
        f"Origin: {origin}\nSuite: x\nCodename: {suite}\nArchitectures: amd64 arm64\nComponents: main\n"
        f"Date: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n{entries}"
    )
    return f"deb [trusted=yes] file:{directory} {suite} main\n"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A function that gives an ``Apt`` that has read the sources of a host with this sources.list."""

    def prepare(text):
        etc = tmp_path / "etc"
        (etc / "sources.list.d").mkdir(parents=True, exist_ok=True)
        (etc / "sources.list").write_text(text)
        monkeypatch.setattr(apt_module, "host_sources", partial(sources.host_sources, etc=etc))
        work = tmp_path / "apt"
        shutil.rmtree(work, ignore_errors=True)
        apt = Apt(work, BOOKWORM, Runner(tmp_path / "log", {}))
        apt.prepare()
        return apt

    return prepare


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text(
        'user = "u"\nshell = "/bin/sh"\n[[stage]]\nname = "tools"\npackages = ["tool"]\n'
    )
    return Recipe.load(tmp_path)


def test_only_the_distributions_own_sources_are_used(prepared, tmp_path, recipe):
    own = mirror(tmp_path / "own")
    updates = mirror(tmp_path / "own", suite="bookworm-updates", version="1.1")
    foreign = mirror(tmp_path / "foreign", origin="Vendor", version="9.9")
    apt = prepared(foreign + own + updates)
    assert [source.suite for source in apt.sources] == ["bookworm", "bookworm-updates"]
    assert all(source.uri == f"file:{tmp_path}/own" for source in apt.sources)
    assert apt.solve(recipe) == [{"tool": "1.1"}]
    assert apt.release_time() == 1640995200


def test_mirror_lists_are_understood(prepared, tmp_path, recipe):
    """Debian's cloud images name their mirrors in a file."""
    mirror(tmp_path / "own")
    (tmp_path / "mirrors").write_text(f"file:{tmp_path}/own\n")
    apt = prepared(f"deb [trusted=yes] mirror+file://{tmp_path}/mirrors bookworm main\n")
    assert apt.solve(recipe) == [{"tool": "1.0"}]
    assert "http://deb.debian.org/debian\n" in apt.sources_text
    assert str(tmp_path) not in apt.sources_text


def test_no_source_is_the_distributions_own(prepared, tmp_path):
    for text in ("", mirror(tmp_path / "foreign", origin="Vendor")):
        with pytest.raises(MissingCapability, match="debian bookworm") as error:
            prepared(text)
        assert "bookworm" in error.value.hint


def test_a_mirror_that_is_gone_is_named(prepared, tmp_path):
    with pytest.raises(Broken, match=r"fetching the package lists failed(.|\n)*/gone"):
        prepared(f"deb [trusted=yes] file:{tmp_path}/gone bookworm main\n")


def test_a_package_that_does_not_exist_is_named(prepared, tmp_path, recipe):
    text = (recipe.directory / "recipe.toml").read_text().replace('"tool"]', '"no-such-tool"]')
    (recipe.directory / "recipe.toml").write_text(text)
    with pytest.raises(Broken, match="no-such-tool"):
        prepared(mirror(tmp_path / "own")).solve(Recipe.load(recipe.directory))
