"""From nothing to the first command's result.

By the official client, of a server that is quiet and so has its spare, as it is by default; and of one that keeps none,
as it is for those who ask while many others do. podman gets a bridge network, as a sprite has a network. The floor is crun
alone, on an overlay of the same layers: no user namespace, network, seccomp, disk image or server.
"""

from __future__ import annotations

from bench.figures import Row
from bench.peers import QUICK_RUNTIME, timed
from bench.setting import Product, Setting


def measure(setting: Setting) -> list[Row]:
    podman, floor = setting.podman, setting.floor
    theirs: list[float] = []
    quick: list[float] = []
    least: list[float] = []
    ours: list[float] = []
    anew: list[float] = []
    with setting.product(spares=1) as product, setting.product() as plain:
        for number in range(setting.rounds + 1):
            name = f"create-{number}"
            theirs.append(timed(lambda: podman.run(name)))
            podman.remove(name)
            quick.append(timed(lambda: podman.run(name, QUICK_RUNTIME)))
            podman.remove(name)
            least.append(timed(lambda: floor.run(name)))
            floor.delete(name)
            ours.append(_created(product, name))
            anew.append(_created(plain, name))
    peer = Row("podman run + podman exec", theirs[1:])  # the first of each warmed up
    quicker = Row("podman run + podman exec, with crun", quick[1:])
    bare = Row("crun run + crun exec", least[1:])
    return [
        peer,
        quicker,
        bare,
        Row("create → first command's result", ours[1:], against=peer, aim=0.35),
        Row("the same, against podman with crun", ours[1:], against=quicker),
        Row("the same, against the floor", ours[1:], against=bare),
        Row("create → first command's result, without a spare", anew[1:], against=peer),
    ]


def _created(product: Product, name: str) -> float:
    spent = timed(lambda: product.client.create_sprite(name).run("true"))
    product.client.get_sprite(name).delete()
    product.rested()
    return spent
