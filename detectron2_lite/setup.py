"""Packaging of the stand-in; the version is the one the package states."""

import re
from pathlib import Path

from setuptools import find_packages, setup

SOURCE = Path(__file__).with_name("detectron2") / "__init__.py"

setup(
    name="detectron2",
    version=re.search(r'__version__ = "(.+)"', SOURCE.read_text(encoding="utf-8")).group(1),
    description="Stand-in for the part of Detectron2 that zss_d2 uses",
    license="Apache-2.0",
    packages=find_packages(),
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "yacs>=0.1.8",
        "tensorboard>=2.10",
        "termcolor>=2.0",
        "tabulate>=0.9",
        "numpy>=1.26",
        "pillow>=10.3",
        "pycocotools>=2.0.8",
    ],
)
