"""Names and digests become file names, so nothing else may pass; records are read with distrust."""

import dataclasses
import json

import pytest

from spriggan.errors import Broken, InvalidRequest
from spriggan.image.image import Image, Layer, check_digest, check_name

HOSTILE = [
    "",
    ".",
    "..",
    "../sprites",
    "a/b",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "sprites\n",
    "Sprites",
    "-a",
    "a-",
    "a.b",
    "a b",
    "ä",
    "٣",
    "$(id)",
    "a" * 64,
    "a" * 100_000,
]

IMAGE = Image(
    name="sprites",
    created="2026-01-01T00:00:00Z",
    distribution="debian bookworm",
    layers=(Layer("b" * 64, "system", 20, "k2"), Layer("a" * 64, "base", 100, "k1")),
    user="sprite",
    shell="/bin/zsh",
    environment={"LANG": "C.UTF-8"},
)


@pytest.mark.parametrize("name", ["a", "7", "sprites", "my-image-2", "a" * 63])
def test_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name):
    with pytest.raises(InvalidRequest) as error:
        check_name(name)
    assert error.value.hint
    assert len(error.value.message) < 500


@pytest.mark.parametrize("digest", [*HOSTILE[:-2], "A" * 64, "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n"])
def test_hostile_digests(digest):
    with pytest.raises(InvalidRequest):
        check_digest(digest)
    with pytest.raises(InvalidRequest):
        Layer(digest, "base", 1, "k")


def test_an_image_survives_its_record():
    assert Image.from_json(IMAGE.to_json(), name="sprites") == IMAGE
    assert IMAGE.digests == ["b" * 64, "a" * 64]
    assert IMAGE.bytes == 120


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps({"name": "sprites"}),
        IMAGE.to_json().replace("a" * 64, "../../../etc/passwd"),
        IMAGE.to_json().replace('"stage"', '"stagger"'),
        dataclasses.replace(IMAGE, name="other").to_json(),
        dataclasses.replace(IMAGE, layers=()).to_json(),
        IMAGE.to_json()[:-20],
    ],
)
def test_damaged_records(text):
    with pytest.raises(Broken, match="'sprites' is damaged"):
        Image.from_json(text, name="sprites")
