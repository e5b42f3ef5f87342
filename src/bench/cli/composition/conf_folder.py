"""Locate the YAML files of bench itself."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """Return the folder of the YAML files: inside the installed package, or next to `src` in a checkout."""
    package = Path(__file__).parents[2]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"
