"""Draws the charts of the docs from the tables that stand beside them.

python docs/figures/charts.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1]
# Seen, unseen and harmonic mean; told apart by readers with any colour vision (Okabe and Ito).
COLOURS = {"mIoU-S": "#56B4E9", "mIoU-U": "#B0003A", "hIoU": "#333333"}


def table_of(page: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of the first table of a page whose head has all these columns."""
    rows: list[dict[str, str]] = []
    head: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if "|" in line else []
        if not cells:
            if rows:
                return rows
            head = []
        elif head and set(line) - set("|- "):
            rows.append(dict(zip(head, cells, strict=True)))
        elif not head and set(columns) <= set(cells):
            head = cells
    return rows


def draw_mini_methods() -> Figure:
    """mIoU(S), mIoU(U) and hIoU of every method on the mini world."""
    rows = table_of(DOCS / "mini.md", "method", *COLOURS)
    figure = Figure(figsize=(7.2, 0.42 * len(rows) + 0.8), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        values = {metric: float(row[metric]) for metric in COLOURS}
        low, high = sorted((values["mIoU-S"], values["mIoU-U"]))
        axis.plot([low, high], [place, place], color="0.8", linewidth=3, zorder=1)
        for metric, value in values.items():
            marker = "|" if metric == "hIoU" else "o"
            label = metric if place == 0 else None
            size = 160 if metric == "hIoU" else 60
            axis.scatter(
                value, place, s=size, marker=marker, color=COLOURS[metric], label=label, zorder=2
            )
    axis.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="percent, zss_mini_val")
    axis.grid(axis="x", color="0.9")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.legend(loc="upper right", frameon=False)
    return figure


if __name__ == "__main__":
    draw_mini_methods().savefig(DOCS / "images" / "mini_methods.png", dpi=110)
