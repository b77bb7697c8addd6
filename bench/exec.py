"""One command in a computer that runs already.

``true``, by the official client. podman's runtime is runc, and crun where a line says so; the floor is crun alone.
"""

from __future__ import annotations

from bench.figures import Row
from bench.peers import QUICK_RUNTIME, timed
from bench.setting import Setting


def measure(setting: Setting) -> list[Row]:
    podman, floor = setting.podman, setting.floor
    theirs: list[float] = []
    quick: list[float] = []
    least: list[float] = []
    ours: list[float] = []
    with setting.product() as product, product.sprite("exec") as sprite:
        podman.run("exec")
        podman.run("exec-quick", QUICK_RUNTIME)
        floor.run("exec")
        sprite.run("true")
        for _ in range(setting.rounds * 3):
            theirs.append(timed(lambda: podman.exec("exec")))
            quick.append(timed(lambda: podman.exec("exec-quick")))
            least.append(timed(lambda: floor.exec("exec")))
            ours.append(timed(lambda: sprite.run("true")))
        podman.remove("exec")
        podman.remove("exec-quick")
        floor.delete("exec")
    peer = Row("podman exec", theirs)
    quicker = Row("podman exec, with crun", quick)
    bare = Row("crun exec", least)
    return [
        peer,
        quicker,
        bare,
        Row("exec, there and back", ours, against=peer, aim=0.15),
        Row("the same, against podman with crun", ours, against=quicker),
        Row("the same, against the floor", ours, against=bare),
    ]
