"""Label a picture with your own words, from Python.

python examples/own_words.py [PICTURE WORD...]
"""

import sys
from pathlib import Path

from zss_d2 import load_model
from zss_d2.data.synthetic.mini.scene import draw_scene

OUTPUT = Path("output/examples/own_words")
OUTPUT.mkdir(parents=True, exist_ok=True)

if len(sys.argv) > 1:
    # The recommended method without training, on OpenAI's ViT-B/16, which is downloaded once.
    picture, *words = sys.argv[1:]
    model = load_model()
else:
    # A drawn scene, and a method without training on a CLIP of a million parameters that knows it.
    model = load_model("configs/clip_surgery_mini.yaml")
    picture = draw_scene("val", 62).image  # a path, a Pillow image or an array
    words = ["purple plain thing", "red meshed thing", "wood", "snow"]

result = model.predict(picture, words)
print(f"{result.labels.shape[1]} x {result.labels.shape[0]} px, classes by label id:")
for label_id, (name, share) in enumerate(result.area.items()):
    print(f"  {label_id}  {name:20} {share:4.0%}")

# Two wordings of one class, words that only compete, and pixels whose best score is below 0.8.
merged, *others = "|".join(words[:2]), *words[2:]
careful = model.predict(picture, [merged], background=others, unknown_below=0.8)
print("; ".join(f"{name} {share:.0%}" for name, share in careful.area.items()))

# Label ids as a PNG, a picture with a legend, run lengths for COCO.
for path in result.save(OUTPUT, ["labels", "overlay", "coco"], name="scene"):
    print("written:", path)
