"""Modules that must not be imported: each writes a file that records the import, and raises."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("transformers", "numpy", "hydra", "mlflow", "hydra_plugins/mine", "tokenizers", "safetensors", "triton")
MODULES = (
    *("torch", "profile", "rich", "psutil", "pynvml", "json", "typing", "dataclasses", "multiprocessing", "socket"),
    *(
        "filelock",
        "gc",
        "secrets",
        "copy",
        "pickle",
        "logging",
        "yaml",
        "omegaconf",
        "gguf",
        "scipy",
        "pandas",
        "jinja2",
    ),
    *("matplotlib", "sqlalchemy", "optuna", "ray", "submitit", "cloudpickle", "subprocess", "signal", "argparse"),
    *("random", "tempfile", "shutil", "threading", "pathlib", "inspect", "statistics", "csv", "select", "accelerate"),
)
CODE = """
import os
open(os.path.join({marks!r}, f"imported-{name}-by-{{os.getpid()}}"), "w").close()
raise RuntimeError("{name} of the current folder was imported")
"""


def plant(folder: Path, marks: Path, *further: str) -> Path:
    """Fill a folder with decoys, also for the further packages; return the folder."""
    marks.mkdir(parents=True, exist_ok=True)
    for name in (*PACKAGES, *further):
        (folder / name).mkdir(parents=True)
        text = CODE.format(marks=str(marks), name=name.replace("/", "."))
        (folder / name / "__init__.py").write_text(text, encoding="utf-8")
    for name in MODULES:
        (folder / f"{name}.py").write_text(CODE.format(marks=str(marks), name=name), encoding="utf-8")
    return folder


def imported(marks: Path) -> list[str]:
    """Return the decoys that were imported."""
    return sorted(each.name for each in marks.iterdir())
