#!/usr/bin/env python
"""Train or evaluate any method of zss_d2.

python train_net.py --config-file configs/ldvc_voc.yaml --num-gpus 8
python train_net.py --config-file configs/ldvc_voc.yaml --num-gpus 8 --resume
python train_net.py --config-file configs/ldvc_voc.yaml --eval-only MODEL.WEIGHTS model.pth
torchrun --nproc-per-node 8 train_net.py --config-file configs/ldvc_voc.yaml
"""

from __future__ import annotations

import sys

from zss_d2.train import start, wait_quietly

if __name__ == "__mp_main__":
    wait_quietly()
if __name__ == "__main__":
    sys.exit(start(usage=__doc__))
