"""Which code this is: the commit of the package's own checkout, or what was installed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# These let git look into another repository, such as within one of its hooks.
_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE")


def code_identity(package: Path) -> dict[str, Any]:
    """``version``, ``commit`` and ``uncommitted_changes`` of a package; None for what is unknown.

    A repository that the package merely lies in, such as that of somebody's environment, says
    nothing about it: the commit is that of a checkout with the package's folder at its top, or the
    one that pip installed from.

    Args:
        package: folder of the package, named like its distribution.
    """
    installed = _distribution(package)
    identity = {
        "version": installed.version if installed else None,
        "commit": _installed_commit(installed),
        "uncommitted_changes": None,
    }
    if _is_checkout(package):
        status = _git(package, "status", "--porcelain", "--untracked-files=no")
        identity["commit"] = _git(package, "rev-parse", "HEAD")
        identity["uncommitted_changes"] = None if status is None else bool(status)
    return identity


def _is_checkout(package: Path) -> bool:
    top = _git(package, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != package.parent.resolve():
        return False
    return _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None


def _distribution(package: Path) -> Distribution | None:
    """The installed distribution that these very files belong to, copied or in place."""
    for candidate in distributions(name=package.name):
        origin = _origin(candidate)
        editable = origin.get("dir_info", {}).get("editable", False)
        home = Path(unquote(urlsplit(origin["url"]).path)) if editable else None
        folder = home / package.name if home else Path(str(candidate.locate_file(package.name)))
        if folder.resolve() == package.resolve():
            return candidate
    return None


def _installed_commit(distribution: Distribution | None) -> str | None:
    return _origin(distribution).get("vcs_info", {}).get("commit_id") if distribution else None


def _origin(distribution: Distribution) -> Mapping[str, Any]:
    """What pip noted of where a distribution came from (PEP 610)."""
    try:
        return json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git in a folder; None where there is no git, no repository or no permission."""
    environment = {key: x for key, x in os.environ.items() if key not in _REDIRECTIONS}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, timeout=60
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
