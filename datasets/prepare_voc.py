#!/usr/bin/env python
"""Prepare PASCAL VOC 2012 (with the SBD masks) for zss_voc_{train,val} or zss_voc21_{train,val}."""

from __future__ import annotations

import sys

from zss_d2.data.sets.voc import run

if __name__ == "__main__":
    sys.exit(run())
