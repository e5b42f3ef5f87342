"""Check the list of all places that delete or overwrite (docs/what-bench-deletes.md) against the sources."""

from __future__ import annotations

import ast

import pytest

from bench.jobs.folders import output_folder, sweep_folder
from bench.results.file_names import CONCLUSIONS
from bench.tracking.runs.trial_run import ARTIFACTS
from conftest import ROOT
from deleting import places, places_in

PAGE = ROOT / "docs/what-bench-deletes.md"


def rows() -> list[list[str]]:
    """The cells of each row of the table."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| `")]


def test_the_list_names_every_place_and_no_other() -> None:
    listed = {row[0].strip("`") for row in rows()}
    found = places(ROOT / "src")
    assert sorted(found - listed) == [], "delete or overwrite, and are not in the list"
    assert sorted(listed - found) == [], "are in the list, and delete or overwrite nothing"


def test_each_row_gives_object_and_reason_once_and_in_order() -> None:
    assert all(len(row) == 3 and all(len(cell) > 10 for cell in row) for row in rows())
    names = [row[0] for row in rows()]
    assert names == sorted(set(names), key=names.index)
    assert len(names) > 50


@pytest.mark.parametrize(
    "line",
    [
        "path.unlink()", "shutil.rmtree(folder)", "os.remove(name)", "path.rename(other)", "temporary.replace(path)",
        "os.replace(a, b)", "folder.rmdir()", "path.write_text(text)", "open(path, 'w')", "path.open('ab')",
        "path.open(mode='r+b')", "os.open(path, os.O_WRONLY | os.O_CREAT)", "OmegaConf.save(config, path)",
        "shutil.copyfile(a, b)", "file.truncate(0)", "folder.mkdir(exist_ok=True)", "write_whole(path, text)",
        "tempfile.mkdtemp()", "FileLock(path)", "save_file(tensors, path)", "shutil.move(a, b)", "path.symlink_to(other)",
    ],
)  # fmt: skip
def test_a_call_that_deletes_or_overwrites_is_found(line: str) -> None:
    assert list(places_in(ast.parse(f"class A:\n    def f(self):\n        if x:\n            {line}"))) == ["A.f"]
    assert list(places_in(ast.parse(line))) == ["<module>"]


@pytest.mark.parametrize(
    "line",
    [
        "text.replace('a', 'b')", "dataclasses.replace(job, number=1)", "replace(job, number=1)", "path.open('rb')",
        "open(path)", "path.open(encoding='utf-8')", "os.open(os.devnull, os.O_WRONLY)", "os.open(path, os.O_RDONLY)",
        "name.truncate(80, overflow='ellipsis')", "names.remove(name)", "publisher.open()",
    ],
)  # fmt: skip
def test_a_call_that_deletes_nothing_is_not_reported(line: str) -> None:
    assert list(places_in(ast.parse(line))) == []


# ---- names that are refused ----------------------------------------------------------------------------------------


def test_a_single_run_is_refused_if_one_of_its_output_files_exists() -> None:
    written = {each for each in ARTIFACTS if not each.startswith((".hydra", "record.json"))}
    assert written <= set(output_folder.WRITTEN)


def test_a_sweep_is_refused_if_one_of_its_output_files_exists() -> None:
    assert set(CONCLUSIONS) <= set(sweep_folder.WRITTEN)
