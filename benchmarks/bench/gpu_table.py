"""Goals of benchmarks/gpu.py, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

TWO_TOWERS = ("zegclip_voc", "ldvc_voc", "zegclip_coco", "ldvc_coco")
# At most so many passes of the bare tower, in bf16.
RATIO_GOALS = {
    ("training step", "zegclip_voc"): 2.6,
    ("training step", "ldvc_voc"): 3.0,
    ("training step", "ldvc_coco"): 5.0,
    **{("images in a call", name): 1.5 for name in TWO_TOWERS},
    **{("one image", name): 1.4 for name in TWO_TOWERS},
}
# At most so many GiB in a training step of 16 images in bf16: half of what docs/performance.md has.
MEMORY_GOALS = {"zegclip_coco": 9.85, "ldvc_coco": 10.8}
# At least so many times the images per second of ldvc_voc, in bf16.
SPEED_GOALS = {"MSCAN-T": 7.0, "MSCAN-B": 2.5}
LOADER_GOAL = 200.0  # images per second, of 8 workers

Cell = dict[str, Any]


def judge(cell: Cell, others: Sequence[Cell]) -> list[dict[str, Any]]:
    """What the goals say of a measurement: [{goal, found, ok}]; nothing where there is none.

    Args:
        cell: measure, model, precision, batch, ms, and where known ratio and gib.
        others: measurements that came before.
    """
    if cell["precision"] != "bf16":
        return []
    name, measure = cell["model"], cell["measure"]
    kind = measure.split(",")[0]
    goals = []
    most = RATIO_GOALS.get((kind, name))
    if most and "ratio" in cell:
        goals.append((f"ratio <= {most}", cell["ratio"], cell["ratio"] <= most))
    most = MEMORY_GOALS.get(name)
    if most and "gib" in cell:
        goals.append((f"GiB <= {most}", cell["gib"], cell["gib"] <= most))
    if name in SPEED_GOALS and kind != "training step":
        same = {
            "measure": measure,
            "precision": "bf16",
            "batch": cell["batch"],
            "model": "ldvc_voc",
        }
        for ldvc in (c for c in others if c.items() >= same.items()):
            times, least = ldvc["ms"] / cell["ms"], SPEED_GOALS[name]
            goals.append((f"{times:.1f} of {least} times LDVC's speed", times, times >= least))
    return [{"goal": text, "found": found, "ok": ok} for text, found, ok in goals]


def verdict(ok: bool | None) -> str:
    return "not judged" if ok is None else "ok" if ok else "SHORT"


def table(cells: Sequence[Cell], columns: Sequence[str], batch: int, size: int) -> str:
    """Markdown: a row for every measure and precision, a column for the tower and every model.

    ms (ratio to the tower; goals), GiB and launches.
    """
    rows: dict[str, dict[str, str]] = {}

    def put(row: str, column: str, text: str) -> None:
        rows.setdefault(row, {})[column] = text

    for cell in cells:
        measure, precision, column = cell["measure"], cell["precision"], cell["model"]
        if measure == "tower":
            if cell["batch"] in (1, batch):
                put(f"tower x{cell['batch']}, {precision}, ms", "tower", f"{cell['ms']:.3g}")
            continue
        text = f"{cell['ms']:.3g}" + (f" ({cell['ratio']:.1f})" if "ratio" in cell else "")
        text += "".join(f"; {g['goal']}: {verdict(g['ok'])}" for g in cell.get("goals", ()))
        if cell["batch"] not in (1, batch):
            text += f" [batch {cell['batch']}]"
        put(f"{measure}, {precision}, ms", column, text)
        if "gib" in cell:
            put(f"{measure}, {precision}, GiB", column, f"{cell['gib']:.1f}")
        if "launches" in cell:
            put(f"{measure}, {precision}, launches", column, str(cell["launches"]))
    lines = [[row, *(found.get(column, "") for column in columns)] for row, found in rows.items()]
    return tabulate(lines, [f"batch {batch}, {size} px", *columns], tablefmt="github")
