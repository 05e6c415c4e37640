"""Installs zss_d2. Detectron2 comes separately, see README.md: it is on no package index."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
CONFIGS = {"zss_d2.configs": "configs", "zss_d2.configs.ablations": "configs/ablations"}

setup(
    name="zss_d2",
    version="0.2.0",
    description="Generalised zero-shot semantic segmentation (LDVC, CLIP-ZSS) on Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # The configs lie beside the package in a checkout, and inside it once installed.
    packages=[*find_packages(include=["zss_d2", "zss_d2.*"]), *CONFIGS],
    package_dir=CONFIGS,
    package_data={
        "zss_d2": ["**/*.json", "**/*.yaml", "**/*.safetensors", "**/*.md", "**/*.j2"],
        **dict.fromkeys(CONFIGS, ["*.yaml"]),
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "open_clip_torch>=3.1",
        "filelock>=3.12",
        "fvcore>=0.1.5.post20221221",
        "huggingface_hub>=0.30",
        "iopath>=0.1.9",
        "jinja2>=3.1",
        "pycocotools>=2.0.8",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "opencv-python>=4.10.0.84",
        "pillow>=10.3",
        "pydantic>=2.7",
        "pyyaml>=6.0.1",
        "safetensors>=0.4",
        "scipy>=1.11",
        "segmentation-models-pytorch>=0.5",
        "tabulate>=0.9",
        "timm>=1.0.17",
        "tqdm>=4.66",
        "wrapt>=1.16",
    ],
    entry_points={"console_scripts": ["zss = zss_d2.cli:main"]},
    extras_require={
        "onnx": ["onnx>=1.18", "onnxruntime>=1.22", "onnxscript>=0.6"],
        "geo": ["rasterio>=1.4"],
        "web": ["gradio>=6.0,<7"],
        "browser": ["selenium>=4.25"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5"],
        "dev": [
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "rasterio>=1.4",
            "ruff>=0.9",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
