"""Compare methods on the same images, with intervals of the difference, from Python.

    python examples/compare_methods.py [RUN RUN...]

Runs are folders that were tested with TEST.PER_IMAGE True, the first is what the others are
compared with. Without any, two methods without training are tested on forty scenes.
"""

import os
import sys
from pathlib import Path

from zss_d2.analysis.run_folder import finished_runs
from zss_d2.cli import main as zss
from zss_d2.evaluation.bootstrap import bootstrap, compare

OUTPUT = Path("output/examples/compare_methods")
folders = [Path(folder) for folder in sys.argv[1:]]

if not folders:
    # The first scenes of the mini world's validation set, drawn here.
    os.environ["DETECTRON2_DATASETS"] = str(OUTPUT / "datasets")
    configs = ["maskclip_mini", "clip_surgery_mini"]
    if zss(["prepare", "mini", "--train", "0", "--dev", "0", "--val", "40"]) or zss(
        ["sweep", *configs, "--output", str(OUTPUT), "--opts", "TEST.PER_IMAGE", "True"]
    ):
        sys.exit(1)
    folders = [OUTPUT / config / "seed0" for config in configs]

runs = finished_runs(folders)
data_set = next(iter(runs[0].metrics))
print(f"hIoU on {data_set} and difference to {runs[0].name}, with 95 % intervals:")
first = runs[0].counts(data_set)
for run in runs:
    counts = run.counts(data_set)
    score, difference = bootstrap(counts)["hIoU"], compare(first, counts)["hIoU"]
    print(
        f"  {run.name:18} {score.value:5.1f} ({score.low:5.1f} to {score.high:5.1f})  "
        f"{difference.value:+5.1f} ({difference.low:+5.1f} to {difference.high:+5.1f})"
    )
