"""What users may ask for: each value is checked here before anything is done with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spriggan.engine.options import Options
from spriggan.engine.records import SpriteConfig
from spriggan.errors import InvalidValue
from spriggan.wire.text import is_text

NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(NAME)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL_SETTINGS = {"auth": ("sprite", "public"), "private_access": ("org_users", "admins")}
_CONFIG_KEYS = ("ram_mb", "cpus", "storage_gb", "pids", "region")

MAX_LABELS = 64
MAX_LABEL_LENGTH = 128
MAX_ENVIRONMENT_BYTES = 64 << 10
MAX_COMMENT_LENGTH = 1024
MIN_RAM_MB = 64
MIN_PIDS = 32


def is_name(text: object) -> bool:
    """Whether ``text`` can be the name of a sprite."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def name(text: object) -> str:
    """A sprite's name, or ``InvalidValue``."""
    if not isinstance(text, str) or not is_name(text):
        raise InvalidValue(
            f"{shown(text)} cannot be a sprite's name",
            hint="use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends",
        )
    return text


def labels(given: object) -> list[str]:
    """A list of labels without repetitions, in the order given."""
    if not isinstance(given, list | tuple):
        raise InvalidValue(f"labels must be a list, not {shown(given)}", hint='for example ["ci", "team-a"]')
    for label in given:
        if not isinstance(label, str) or not 1 <= len(label) <= MAX_LABEL_LENGTH or not label.isprintable():
            raise InvalidValue(
                f"{shown(label)} cannot be a label",
                hint=f"a label is 1 to {MAX_LABEL_LENGTH} printable characters",
            )
    unique = list(dict.fromkeys(given))
    if len(unique) > MAX_LABELS:
        raise InvalidValue(f"{len(unique)} labels are too many", hint=f"at most {MAX_LABELS} labels")
    return unique


def environment(given: object) -> dict[str, str]:
    """Environment variables that can be handed to a process."""
    if not isinstance(given, Mapping):
        raise InvalidValue(
            f"environment must be an object, not {shown(given)}", hint='for example {"LANG": "C.UTF-8"}'
        )
    for key, value in given.items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise InvalidValue(
                f"{shown(key)} cannot be the name of an environment variable",
                hint="use letters, digits and underscores, not starting with a digit",
            )
        if not isinstance(value, str) or "\0" in value or not is_text(value):
            raise InvalidValue(
                f"the value of environment variable {key} must be text without NUL",
                hint="quote numbers and booleans",
            )
    if sum(len(key) + len(value.encode()) + 2 for key, value in given.items()) > MAX_ENVIRONMENT_BYTES:
        raise InvalidValue(
            "the environment is too large", hint=f"at most {MAX_ENVIRONMENT_BYTES >> 10} KiB in all"
        )
    return dict(given)


def url_settings(given: object, before: Mapping[str, str]) -> dict[str, str]:
    """The URL settings ``before``, changed by those ``given``."""
    if not isinstance(given, Mapping):
        raise InvalidValue(
            f"url_settings must be an object, not {shown(given)}", hint='for example {"auth": "sprite"}'
        )
    changed = dict(before)
    for key, value in given.items():
        allowed = _URL_SETTINGS.get(key) if isinstance(key, str) else None
        if allowed is None:
            raise InvalidValue(f"unknown URL setting {shown(key)}", hint=f"known: {', '.join(_URL_SETTINGS)}")
        if value is None:
            continue
        if value not in allowed:
            raise InvalidValue(
                f"URL setting {key} cannot be {shown(value)}", hint=f"use {' or '.join(allowed)}"
            )
        changed[key] = value
    return changed


def config(given: object, options: Options) -> SpriteConfig:
    """What a sprite may use, within what this server allows."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InvalidValue(
            f"config must be an object, not {shown(given)}", hint='for example {"ram_mb": 4096}'
        )
    for key in given:
        if key not in _CONFIG_KEYS:
            raise InvalidValue(
                f"unknown setting {shown(key)} in config", hint=f"known: {', '.join(_CONFIG_KEYS)}"
            )
    # A region is accepted, as official clients send one, and means nothing on one host.
    return SpriteConfig(
        ram_mb=_whole(given, "ram_mb", options.default_ram_mb, MIN_RAM_MB, options.max_ram_mb),
        cpus=_number(given, "cpus", options.default_cpus, 0, options.max_cpus),
        storage_gb=_whole(given, "storage_gb", options.default_storage_gb, 1, options.max_storage_gb),
        pids=_whole(given, "pids", options.default_pids, MIN_PIDS, options.max_pids),
    )


def box(given: object, options: Options, known: tuple[str, ...]) -> str:
    """A kind of box that this server has."""
    kind = options.default_box if given is None else given
    if not isinstance(kind, str) or kind not in known:
        raise InvalidValue(f"there is no box kind {shown(given)}", hint=f"known: {', '.join(known)}")
    return kind


def comment(given: object) -> str:
    """A checkpoint's comment."""
    if given is None:
        return ""
    if not isinstance(given, str) or len(given) > MAX_COMMENT_LENGTH or "\0" in given or not is_text(given):
        raise InvalidValue(
            "the comment must be text without NUL", hint=f"at most {MAX_COMMENT_LENGTH} characters"
        )
    return given


def memory_limit(given: Mapping[str, Any], options: Options) -> None:
    """A resources policy: ``{"memory": {"limit_mb", "autoscale"?}}``, or ``InvalidValue``."""
    memory = given.get("memory")
    if memory is None:
        return
    if not isinstance(memory, Mapping):
        raise InvalidValue(
            "memory must be an object with limit_mb", hint='for example {"memory": {"limit_mb": 4096}}'
        )
    _whole(memory, "limit_mb", options.default_ram_mb, MIN_RAM_MB, options.max_ram_mb)


def _number(given: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = given.get(key)
    if value is None:
        return min(default, most)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"{key} must be a number, not {shown(value)}", hint=f"from {least:g} to {most:g}")
    if not least <= value <= most:  # also refuses NaN
        raise InvalidValue(
            f"{key} {shown(value)} is outside what this server allows", hint=f"use {least:g} to {most:g}"
        )
    return float(value)


def _whole(given: Mapping[str, Any], key: str, default: int, least: int, most: int) -> int:
    value = _number(given, key, default, least, most)
    if value != int(value):
        raise InvalidValue(f"{key} must be a whole number, not {value:g}", hint=f"from {least} to {most}")
    return int(value)


def shown(value: object) -> str:
    """A value for an error message: recognisable, printable and short."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "…"
