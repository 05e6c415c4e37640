"""The docs hold together: links lead somewhere, and the charts are those of their tables."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from zss_d2.engine import load_config

PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for place in (ROOT, *(ROOT / x for x in ("docs", "datasets", "examples", "detectron2_lite")))
    for page in (place.rglob("*.md") if place.name == "docs" else place.glob("*.md"))
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name):
    page = ROOT / name
    lost = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def test_the_site_has_every_page_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    names = re.findall(r": ([\w/]+\.md)$", text, re.M)
    listed = {ROOT / "docs" / name for name in names}
    missing = [page for page in (ROOT / "docs").rglob("*.md") if page not in listed]
    assert not missing
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_the_chart_of_the_mini_world_has_the_numbers_of_its_table():
    drawing = runpy.run_path(str(ROOT / "docs/figures/charts.py"))
    (axis,) = drawing["draw_mini_methods"]().axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert {"MaskCLIP", "CLIP-ZSS"} < set(names)
    rows = drawing["table_of"](ROOT / "docs/mini.md", "method", "mIoU-S", "mIoU-U", "hIoU")
    drawn = np.array([point.get_offsets()[0] for point in axis.collections])
    wanted = [[float(row[m]), i] for i, row in enumerate(rows) for m in drawing["COLOURS"]]
    np.testing.assert_allclose(drawn, wanted)
    for row in rows:
        seen, unseen, mean = (float(row[metric]) for metric in ("mIoU-S", "mIoU-U", "hIoU"))
        # The mean of the runs' harmonic means is not quite the harmonic mean of the means.
        assert mean == pytest.approx(2 * seen * unseen / (seen + unseen), abs=0.6)


def test_recipes_have_the_iterations_and_batch_of_their_configs():
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8").partition("## Recipes")[2]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    pairs = []
    for names, iterations in rows[1:8]:
        numbers = [int(x.replace(",", "")) for x in re.findall(r"[\d,]+", iterations)]
        names = re.findall(r"`(\w+)`", names)
        pairs += zip(names, numbers if len(numbers) > 1 else numbers * len(names), strict=True)
    assert len(pairs) == 12
    for name, iterations in pairs:
        cfg = load_config(str(ROOT / f"configs/{name}.yaml"))
        assert (name, cfg.SOLVER.MAX_ITER) == (name, iterations)
        assert cfg.SOLVER.IMS_PER_BATCH == 16 and cfg.DATALOADER.NUM_WORKERS == 4
