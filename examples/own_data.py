"""Train on your own images and masks, measure, and label a new picture, from Python.

python examples/own_data.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from zss_d2 import load_model
from zss_d2.cli import main as zss
from zss_d2.data.synthetic.mini.scene import Plan, draw_plan, scene_rng
from zss_d2.data.synthetic.mini.vocabulary import CLASSES

OUTPUT = Path("output/examples/own_data")
THINGS = ["red plain thing", "red dotted thing", "blue dotted thing", "blue plain thing"]
CLASS_NAMES = ["grass", "sand", *THINGS]
IDS = [CLASSES.index(name) for name in CLASS_NAMES]


def draw(number):
    """A picture (96, 96, 3) and its labels (96, 96): ids in CLASS_NAMES, 255 for none."""
    rng = scene_rng("train", number)
    plan = Plan(things=tuple(rng.choice(IDS[2:], 2)), stuff=tuple(rng.permutation(IDS[:2])))
    scene = draw_plan(plan, "train", rng)
    to_train = np.full(256, 255, np.uint8)
    to_train[IDS] = np.arange(len(IDS))
    return scene.image, to_train[scene.labels]


# 1. A folder of images, one of masks of the same names, and a few lines that say what they mean.
shutil.rmtree(OUTPUT, ignore_errors=True)
for split, numbers in {"train": range(64), "val": range(64, 96)}.items():
    for kind in ("images", "masks"):
        (OUTPUT / kind / split).mkdir(parents=True)
    for number in numbers:
        for kind, array in zip(("images", "masks"), draw(number), strict=True):
            Image.fromarray(array).save(OUTPUT / kind / split / f"{number:03}.png")
(OUTPUT / "blocks.yaml").write_text(f"""\
name: blocks
classes: {CLASS_NAMES}
unseen: [blue plain thing]   # neither its labels nor its name are trained with
splits:
  train: {{images: images/train, masks: masks/train}}
  val: {{images: images/val, masks: masks/val}}
""")

# 2. Train and evaluate: a config of the project, and what is different. The same as
#    zss train ldvc_mini DATASETS.CUSTOM ... on a command line, where --num-gpus 8 is possible too.
run = OUTPUT / "run"
zss(
    [
        *("train", "ldvc_mini"),
        *("DATASETS.CUSTOM", f'("{OUTPUT / "blocks.yaml"}",)', "OUTPUT_DIR", str(run)),
        *("DATASETS.TRAIN", '("zss_blocks_train",)', "DATASETS.TEST", '("zss_blocks_val",)'),
        *("SOLVER.MAX_ITER", "40", "SOLVER.IMS_PER_BATCH", "8"),
    ]
)

# 3. How good is it, on the class too that it was not trained with?
metrics = json.loads((run / "results.json").read_text())["zss_blocks_val"]
for name in ("pAcc", "mIoU-S", "mIoU-U", "hIoU"):
    print(f"{name:7} {metrics[name]:5.1f}")

# 4. The folder of the run is the model.
picture, _ = draw(1000)
model = load_model(run)
result = model.predict(picture, ["grass", "sand", "yellow striped thing", *THINGS])
for name, share in result.area.items():
    print(f"  {name:21} {share:4.0%}")
print("written:", result.save(OUTPUT, ["overlay"], name="new")[0])
