"""From a checkpoint, and from a running sprite, to the first command's result.

Against a create without a spare in the same round, by the official client.
"""

from __future__ import annotations

import serving
from bench.figures import Row
from bench.peers import timed
from bench.setting import Setting


def measure(setting: Setting) -> list[Row]:
    created: list[float] = []
    restored: list[float] = []
    forked: list[float] = []
    with setting.product() as product:
        for number in range(setting.rounds):
            name = f"first-{number}"
            created.append(timed(lambda: product.client.create_sprite(name).run("true")))
            sprite = product.client.get_sprite(name)
            serving.finished(sprite.create_checkpoint(""))
            serving.run(sprite, "echo changed > file")

            def restore() -> None:
                serving.finished(sprite.restore_checkpoint("v1"))
                sprite.run("true")

            restored.append(timed(restore))

            def fork() -> None:
                answer = http.post(f"/v1/sprites/{name}/fork", json={"name": f"{name}-fork"})
                answer.raise_for_status()
                product.client.get_sprite(f"{name}-fork").run("true")

            with product.server.http() as http:
                forked.append(timed(fork))
            product.client.get_sprite(f"{name}-fork").delete()
            sprite.delete()
    create = Row("create → first command's result, without a spare", created)
    return [
        create,
        Row("restore → first command's result", restored, against=create, aim=2),
        Row("fork → first command's result", forked, against=create, aim=2),
    ]
