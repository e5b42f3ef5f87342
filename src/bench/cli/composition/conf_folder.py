"""Where the YAML files of bench itself are."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """The folder of the YAML files: inside the package once installed, beside `src` in a checkout."""
    package = Path(__file__).parents[2]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"
