#!/usr/bin/env python
"""Label images with your own words: ``zss predict``, for torchrun.

python predict.py images --config-file configs/maskclip_voc.yaml --classes cat dog --output out
torchrun --nproc-per-node 8 predict.py images --config-file ... --classes cat dog --output out
"""

from __future__ import annotations

import sys

from zss_d2.collection.command import main

if __name__ == "__main__":
    sys.exit(main())
