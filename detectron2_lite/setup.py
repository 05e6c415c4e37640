"""Packaging of the stand-in; the version is the one the package states."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
SOURCE = (HERE / "detectron2" / "__init__.py").read_text(encoding="utf-8")

setup(
    name="detectron2",
    version=re.search(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE).group(1),
    description="Stand-in for the part of Detectron2 that zss_d2 uses",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
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
        "opencv-python>=4.10",
    ],
)
