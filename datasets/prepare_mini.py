#!/usr/bin/env python
"""Generate the mini world for zss_mini_train, zss_mini_dev and zss_mini_val."""

from __future__ import annotations

import sys

from zss_d2.data.sets.mini import run

if __name__ == "__main__":
    sys.exit(run())
