"""The packages of a host: asked of the real dpkg."""

import shutil

import pytest

from spriggan.errors import MissingCapability
from spriggan.image import packages


@pytest.fixture(autouse=True)
def needs_dpkg():
    if not shutil.which("dpkg-query"):
        pytest.skip("needs dpkg")


def test_missing_finds_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(packages, "PACKAGES", {"dpkg": "is here", "no-such-package-at-all": "is not"})
    assert packages.missing() == ["no-such-package-at-all"]


def test_nothing_to_install(monkeypatch):
    monkeypatch.setattr(packages, "PACKAGES", {"dpkg": "is here"})
    said = []
    assert packages.install(said.append) == []
    assert said == ["all needed packages are installed"]


def test_without_apt(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingCapability) as error:
        packages.missing()
    assert "crun" in error.value.hint
