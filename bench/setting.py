"""What benchmarks share: a running server, the peers, and how often to measure."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import peers
from bench.interruption import Interruption, Undone
from spriggan.image.image import DEFAULT_NAME
from spriggan.image.store import ImageStore

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import holdings
import serving

PLACE = Path("/var/tmp")  # servers and peers have their data here, on one file system


@dataclass(frozen=True)
class Product:
    """A server with a data directory of its own and the default image."""

    server: serving.Server
    client: Any  # the official client

    def init(self) -> int:
        """The pid of the first process of the only sprite."""
        runtime = Path(f"/run/spriggan/{self.server.instance}")
        specs = [json.loads(path.read_text()) for path in runtime.glob("*/spec.json")]
        [spec] = [spec for spec in specs if spec["name"]]  # a spare has none
        return int(
            json.loads((Path(spec["containers_dir"]) / spec["sprite_id"] / "status").read_text())["pid"]
        )

    def rested(self) -> None:
        """Wait until the server has its spares, so that making them is not measured as something else."""
        serving.until(lambda: len(holdings.spares(self.server)) == self.server.spares, what="the spares")

    @contextmanager
    def sprite(self, name: str) -> Iterator[Any]:
        made = self.client.create_sprite(name)
        try:
            yield made
        finally:
            made.delete()


class Setting:
    """Use it as a context manager. The peers are made when first asked for, and kept for all benchmarks."""

    def __init__(self, rounds: int, interruption: Interruption) -> None:
        self.rounds = rounds
        self._interruption = interruption
        self._stack = ExitStack()

    def __enter__(self) -> Setting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._interruption.held():
            self._stack.close()

    def some(self, part: int, *, least: int = 3) -> int:
        """A fraction of the rounds, for what takes long."""
        return max(least, self.rounds // part)

    @contextmanager
    def product(self, *options: str, spares: int = 0) -> Iterator[Product]:
        """A server of its own, warmed up; nothing is left of it afterwards.

        Without ``spares`` nothing is done beside what is measured.
        """
        with Undone(serving.server(PLACE), self._interruption) as server:
            server.start("--spares", str(spares), *options)
            product = Product(server, server.client())
            with product.sprite("warm-up") as sprite:
                sprite.run("true")
            product.rested()
            yield product

    @cached_property
    def directory(self) -> Path:
        """On the same file system as the servers' data directories."""
        made = Path(tempfile.mkdtemp(prefix="spriggan-bench-", dir=PLACE))
        self._stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made

    @cached_property
    def place(self) -> peers.Place:
        cache = serving.IMAGE_CACHE
        image = ImageStore(cache.parent).get(DEFAULT_NAME)
        made = peers.Place(self.directory, [cache / "layers" / f"{digest}.erofs" for digest in image.digests])
        self._stack.callback(made.close)
        return made

    @cached_property
    def floor(self) -> peers.Floor:
        made = peers.Floor(self.place)
        self._stack.callback(made.close)
        return made

    @cached_property
    def podman(self) -> peers.Podman:
        made = peers.Podman(self.place)
        self._stack.callback(made.close)
        print("importing the image into podman", file=sys.stderr)
        made.import_image()
        return made
