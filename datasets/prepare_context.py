#!/usr/bin/env python
"""Prepare PASCAL Context for zss_context59_{train,val} or zss_context60_{train,val}."""

from __future__ import annotations

import sys

from zss_d2.data.sets.context import run

if __name__ == "__main__":
    sys.exit(run())
