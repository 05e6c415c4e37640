#!/usr/bin/env python
"""Say whether Cityscapes (19 classes) is ready for zss_cityscapes_train and zss_cityscapes_val."""

from __future__ import annotations

import sys

from zss_d2.data.sets.cityscapes import run

if __name__ == "__main__":
    sys.exit(run())
