"""Prints every lower bound of both setup.py as a constraint for pip, one "name==bound" per line."""

from __future__ import annotations

import os
import re
import sys
from distutils.core import run_setup
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lower_bounds(folder: Path) -> set[str]:
    """``name==bound`` for each requirement of the distribution in ``folder``, extras included."""
    os.chdir(folder)
    distribution = run_setup("setup.py", stop_after="init")
    wanted = [*distribution.install_requires, *sum(distribution.extras_require.values(), [])]
    odd = [requirement for requirement in wanted if requirement.count(">=") != 1]
    if odd:
        sys.exit(f"{folder / 'setup.py'}: no lower bound in {', '.join(odd)}; write name>=bound")
    # An upper bound, which may stand first, is of no matter.
    return {re.sub(r"^([\w-]+).*>=([^,]+).*", r"\1==\2", requirement) for requirement in wanted}


if __name__ == "__main__":
    print(*sorted(lower_bounds(ROOT) | lower_bounds(ROOT / "detectron2_lite")), sep="\n")
