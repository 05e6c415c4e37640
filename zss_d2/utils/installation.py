"""Whether the package is used from a checkout of the project, and where its configs are."""

from __future__ import annotations

from os.path import isfile
from pathlib import Path

import zss_d2

_PACKAGE = Path(zss_d2.__file__).resolve().parent


def checkout() -> Path | None:
    """The checkout that the package is part of; None: it was installed from a wheel."""
    root = _PACKAGE.parent
    return root if (root / "train_net.py").is_file() and (root / "configs").is_dir() else None


def config_folder() -> Path:
    """The folder of the configs that come with the project, of the checkout or of the wheel."""
    return (checkout() or _PACKAGE) / "configs"


def shipped_config(name: str | Path) -> Path | None:
    """The config of the project that a name, such as ``ldvc_voc``, or a path that does not exist
    here, such as ``configs/ldvc_voc.yaml``, means; None: there is none."""
    path = Path(name)
    if path.suffix not in ("", ".yaml"):
        return None
    below = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    found = config_folder().joinpath(*below).with_suffix(".yaml")
    inside = not path.is_absolute() and ".." not in path.parts and bool(below)
    return found if inside and isfile(found) else None
