"""Two processes, of which only one has an image to test, with a word that is new to its classifier.

Its text tower, of a tag whose file lies in the cache, is built by it alone. Once by each.
"""

from __future__ import annotations

from datetime import timedelta

import open_clip
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from zss_d2.clip import PromptSettings, build_clip_towers
from zss_d2.modeling.methods.clip_zss.classifier import TextClassifier

TAGS = {"toy": {"hf_hub": "some/repo/"}}


def main() -> None:
    open_clip.pretrained._PRETRAINED["zss-tiny"] = TAGS
    for rank in range(2):
        classifier = TextClassifier(
            ("dog",),
            64,
            lambda: build_clip_towers("zss-tiny", "toy").text,
            PromptSettings(["{}"]),
        )
        shape = tuple(classifier(("zebra",)).shape) if comm.get_rank() == rank else None
        # As the counts of an evaluation are.
        shapes = comm.gather(shape)
        if comm.is_main_process():
            print(shapes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    launch(main, 2, dist_url="auto", timeout=timedelta(seconds=60))
