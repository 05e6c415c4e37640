#!/usr/bin/env python
"""Prepare COCO-Stuff 164k for zss_coco_stuff_train and zss_coco_stuff_val."""

from __future__ import annotations

import sys

from zss_d2.data.sets.coco_stuff import run

if __name__ == "__main__":
    sys.exit(run())
