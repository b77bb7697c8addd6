"""What was measured, how it compares, and whether the aim is met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Row:
    """Samples of one thing. ``against`` is a row whose median this one's ``quantile`` is held against.

    ``aim`` bounds that ratio, or with ``aim_in_unit`` the value itself. Of rates ``more_is_better``:
    their p95 is what 95 of 100 rounds reached, and an aim is the least. Of times it is what 95 of 100 kept to.
    """

    what: str
    samples: Sequence[float]
    unit: str = "ms"
    against: Row | None = None
    aim: float | None = None
    aim_in_unit: bool = False
    more_is_better: bool = False
    quantile: int = 50

    @property
    def value(self) -> float:
        """What counts: the row's quantile."""
        return self.percentile(self.quantile)

    @property
    def ratio(self) -> float | None:
        return self.value / self.against.percentile(50) if self.against else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without an aim."""
        if self.aim is None:
            return None
        measured = self.value if self.aim_in_unit or self.ratio is None else self.ratio
        return measured >= self.aim if self.more_is_better else measured <= self.aim

    def percentile(self, percent: float) -> float:
        """A measured value that ``percent`` of all are no worse than."""
        return percentile(self.samples, percent, more_is_better=self.more_is_better)

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "unit": self.unit,
            **{f"p{percent}": round(self.percentile(percent), 3) for percent in PERCENTILES},
            "against": self.against.what if self.against else None,
            "quantile": self.quantile,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "aim": self.aim,
            "aim_in_unit": self.aim_in_unit,
            "more_is_better": self.more_is_better,
            "met": self.met,
            "samples": [round(sample, 3) for sample in self.samples],
        }


def percentile(samples: Sequence[float], percent: float, *, more_is_better: bool = False) -> float:
    """The best sample that ``percent`` of all are no worse than: never a value that was not measured."""
    ordered = sorted(samples, reverse=more_is_better)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of rows as ``to_json`` gives them."""
    lines = [
        "| what | p50 | p95 | p99 | rounds | against | ratio | aim | met |",
        "|---|--:|--:|--:|--:|---|--:|--:|---|",
    ]
    for row in rows:
        figures = " | ".join(_number(row[f"p{percent}"], row["unit"]) for percent in PERCENTILES)
        against, ratio, aim = row["against"] or "", "", ""
        if row["ratio"] is not None:
            ratio = f"{row['ratio']:.2f}"
            if row["quantile"] != 50:
                ratio = f"p{row['quantile']}: {ratio}"
        if row["aim"] is not None:
            unit = f" {row['unit']}" if row["aim_in_unit"] else ""
            aim = f"{'≥' if row['more_is_better'] else '≤'} {row['aim']:g}{unit}"
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        lines.append(
            f"| {row['what']} | {figures} | {len(row['samples'])} | {against} | {ratio} | {aim} | {met} |"
        )
    return "\n".join(lines)


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()
