"""Fifty creates at once.

Without a spare, each up to its first command's result, by clients of their own; against as many one after the other.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.figures import Row
from bench.peers import timed
from bench.setting import Product, Setting

COUNT = 50


def measure(setting: Setting) -> list[Row]:
    one_by_one: list[float] = []
    together: list[float] = []
    succeeded: list[float] = []
    for _ in range(setting.some(10, least=1)):
        with setting.product() as product:
            one_by_one.append(timed(lambda: _one_by_one(product)))
            for number in range(COUNT):
                product.client.get_sprite(f"line-{number}").delete()
            with ThreadPoolExecutor(COUNT) as threads:
                results: list[Any] = []
                together.append(
                    timed(
                        lambda: results.extend(
                            threads.map(lambda n: _attempt(product, f"crowd-{n}"), range(COUNT))
                        )
                    )
                )
            succeeded.append(sum(results))
    line = Row(f"{COUNT} times create → first command, one after the other", one_by_one)
    asked = Row("asked for at once", [float(COUNT)], "sprites")
    return [
        line,
        asked,
        Row(f"{COUNT} at once, until the last one's result", together, against=line, aim=1),
        Row(
            "of them succeeded", succeeded, "sprites", against=asked, aim=1, more_is_better=True, quantile=99
        ),
    ]


def _one_by_one(product: Product) -> None:
    for number in range(COUNT):
        _create(product, f"line-{number}")


def _create(product: Product, name: str) -> None:
    product.server.client().create_sprite(name).run("true")


def _attempt(product: Product, name: str) -> bool:
    try:
        _create(product, name)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True
