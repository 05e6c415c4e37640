#!/usr/bin/env python
"""Say whether ADE20K (150 classes) is ready for zss_ade20k150_train and zss_ade20k150_val."""

from __future__ import annotations

import sys

from zss_d2.data.sets.ade20k import run

if __name__ == "__main__":
    sys.exit(run())
