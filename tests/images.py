"""Images made by hand in the forms of OCI layouts and Docker archives."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import archives

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_json(layers: list[bytes], **config: Any) -> bytes:
    told = {
        "architecture": config.pop("architecture", ARCHITECTURE),
        "os": config.pop("os", "linux"),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}" for layer in layers]},
    }
    return json.dumps(told).encode()


class Layout:
    """The files of an OCI layout, by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str = "") -> dict[str, Any]:
        self.files[f"blobs/sha256/{sha256(data)}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}

    def image(self, layers: list[bytes], *, compress: bool = True, **config: Any) -> dict[str, Any]:
        """Add an image; return its manifest's descriptor."""
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(config_json(layers, **config)),
            "layers": [self.blob(gzip.compress(layer, mtime=0) if compress else layer) for layer in layers],
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST)

    def add(self, descriptor: dict[str, Any], name: str = "", **more: Any) -> Layout:
        """Name a manifest in the index."""
        annotations = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        self.manifests.append({**descriptor, **annotations, **more})
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        return self

    def write(self, directory: Path) -> Path:
        for name, data in self.files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
        return directory

    def tar(self) -> bytes:
        return archives.archive(*(archives.file(name, data) for name, data in self.files.items()))


def layout(*layers: bytes, **config: Any) -> Layout:
    """A layout of one image."""
    made = Layout()
    return made.add(made.image(list(layers), **config), "it")


def docker(*layers: bytes, tags: tuple[str, ...] = ("it:latest",), **config: Any) -> dict[str, bytes]:
    """The files of a Docker archive of one image."""
    described = config_json(list(layers), **config)
    names = [f"{sha256(layer)}/layer.tar" for layer in layers]
    saved = [{"Config": f"{sha256(described)}.json", "RepoTags": list(tags), "Layers": names}]
    return {
        **dict(zip(names, layers, strict=True)),
        f"{sha256(described)}.json": described,
        "manifest.json": json.dumps(saved).encode(),
    }


def tar(files: dict[str, bytes]) -> bytes:
    return archives.archive(*(archives.file(name, data) for name, data in files.items()))
