"""``python -m tests.data.prepare.slowly SCRIPT ARGUMENT...``: a script of datasets/ in slow motion.

So that a signal arrives in the middle of the work. Not a fork of the process of the tests: what
another thread holds there at that moment, nobody would ever give back here.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

from zss_d2.data.prepare import convert
from zss_d2.data.synthetic.mini import write


def slow(function: Callable) -> Callable:
    def call(*arguments):
        time.sleep(0.2)
        return function(*arguments)

    return call


if __name__ == "__main__":
    convert.remap, write.draw_scene = slow(convert.remap), slow(write.draw_scene)
    sys.argv = sys.argv[1:]
    runpy.run_path(str(Path("datasets") / f"{sys.argv[0]}.py"), run_name="__main__")
