"""Test that invalid configs, overrides, records and plans end in one line.

Hypothesis generates them, the same ones in every run. Accepted input must work without an exception and give the
figures that a few independent lines compute from the same JSON.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from bench.analysis.trials.summary import summarize
from bench.cli import compare
from bench.cli.composition.checked_config import to_config
from bench.cli.composition.conf_folder import conf_folder
from bench.cli.refusals.message import explain, is_of_composition
from bench.cli.registration import register
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, walk
from bench.report.comparison import build_report_of_records, to_json
from bench.report.terminal.comparison_text import print_comparison, to_markdown
from bench.report.terminal.progress import print_job_line, print_reference_line
from bench.report.terminal.results_table import print_table
from bench.results import sweep_file
from bench.results.record import Failure, Record, RecordError
from bench.tracking.runs import trial_run
from factories import make_evidence, make_record


def examples(number: int) -> Any:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def is_one_line(text: str, longest: int = 600) -> bool:
    return 0 < len(text) < longest and text.isprintable()


# ---- values ------------------------------------------------------------------------------------------------------


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([10**30, -(10**30), 2**63, 10**400]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308]),
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", " ", "\n", "a\nb", "\0", "\x1b[31m", "\ud800", "\u202e", "x" * 5000, "null", "true", "1", "..", "../x",
         "/etc/passwd", "auto", "eager", "static", "default", "${x}", "cuda:٣", "sqlite:///x.db", "a=b", "[", "é"]
    ),
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.one_of(
    LEAVES,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([nested(50), {"a": nested(50)}]),
    st.just(0).map(lambda _: nested(900)),  # neither these two have a text that could be shown
    st.just(0).map(lambda _: [10**5000]),
    st.just(0).map(lambda _: 10**5000),
)
KEYS = {path: rule for path, _, rule, _ in walk(BenchmarkConfig)}


# ---- configs -----------------------------------------------------------------------------------------------------


def config_or_line(data: Any, keys: set[str]) -> None:
    """Return the result of `from_dict`: a config that can be written and read again, or one line about a key."""
    line = None
    try:
        config = BenchmarkConfig.from_dict(data)
    except ConfigError as error:
        line = str(error)
    if line is not None:
        assert is_one_line(line), line[:2000]
        assert any(line.startswith(key) for key in keys | set(KEYS) | {"config"}), line
        return
    again = BenchmarkConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
    assert again.to_dict() == config.to_dict()
    if config.workload.prompt_file is None:  # which counts by its content
        assert again.trial_id() == config.trial_id() == BenchmarkConfig.from_dict(data).trial_id()


@pytest.mark.parametrize("key", KEYS)
@given(value=VALUES)
@examples(15)
def test_any_value_of_a_key_gives_a_config_or_one_line(key: str, value: object) -> None:
    data: Any = value
    for part in reversed(key.split(".")):
        data = {part: data}
    config_or_line(data, {key})


@given(
    data=st.dictionaries(
        TEXTS | st.sampled_from(sorted({key.split(".")[0] for key in KEYS})) | st.integers(), VALUES, max_size=3
    )
)
@examples(200)
def test_any_mapping_gives_a_config_or_one_line(data: dict[Any, Any]) -> None:
    keys = {str(key)[:20] if isinstance(key, str) and key.isprintable() else "" for key in data}
    config_or_line(data, keys)


# ---- overrides ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def door() -> Any:
    """Set up Hydra's composition as on the command line."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        yield


def compose_or_line(overrides: list[str]) -> None:
    try:
        to_config(compose(config_name="config", overrides=overrides), overrides)
    except Exception as error:  # noqa: BLE001 - which ones may come is what is asserted
        is_known = isinstance(error, (ConfigError, HydraException, OmegaConfBaseException)) or is_of_composition(error)
        line = explain(error, overrides) if is_known else repr(error)
    else:
        return
    assert is_known, line
    assert is_one_line(line), line[:2000]


NONSENSE = st.one_of(
    TEXTS,
    st.sampled_from(
        ["[1,2]", "{a:1}", "{1:2}", "{a:{b:[1,{c:2}]}}", "'", '"x', "1e999", "nan", "-inf", "${oc.env:NOWHERE}", "???",
         "${model.id}", "${bench_help:}", "a,b", "choice(1,2)", "range(1,5)", "1_0", "0x10", "[[[[[[1]]]]]]", "\\",
         "${hydra:runtime.cwd}", "${oc.decode:'[['}", "${", "glob(*)", "int(x)", "5000000000000000000000000"]
    ),
)  # fmt: skip


@given(key=st.sampled_from([*KEYS, "model", "attention", "compile", "model.nowhere", "hydra.run.dir", "compile.options.a.b",
                            "tracking.tags.a", "experiment", "hydra/launcher", "tracking"]),
       sign=st.sampled_from(["", "", "", "+", "++", "~"]), value=NONSENSE)  # fmt: skip
@examples(80)
def test_any_value_of_an_override_gives_a_config_or_one_line(door: None, key: str, sign: str, value: str) -> None:
    compose_or_line([f"{sign}{key}={value}"])


@given(overrides=st.lists(st.text(max_size=12) | NONSENSE, min_size=1, max_size=2))
@examples(50)
def test_any_text_as_an_override_gives_a_config_or_one_line(door: None, overrides: list[str]) -> None:
    compose_or_line(overrides)


# ---- records -----------------------------------------------------------------------------------------------------

FAILED = {"status": "failed", "stage": "warmup", "error": Failure(type="RuntimeError", message="no")}
RECORDS = [each.to_dict() for each in (make_record(), make_record(**make_evidence()), make_record(**FAILED, name="x"))]
JSON = st.one_of(
    LEAVES,
    st.floats(0, 3),
    st.sampled_from([[], {}, [[]], [0.2, 0.1], [-1.0, 2.0], [1e308, 1e308], {"a": 1}, nested(50), "measurement", "ok"]),
    st.lists(st.floats(0, 1), max_size=5).map(sorted),
)


@st.composite
def mutated(draw: st.DrawFn, bases: list[dict[str, Any]] = RECORDS) -> bytes:
    """Return JSON text with one or several changes."""
    data = copy.deepcopy(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, data)
    text = json.dumps(data, allow_nan=True)
    return text.encode()


WORDS = st.sampled_from(
    ["ok", "failed", "skipped", "measurement", "warmup", "load", "not_converged", "eager", "static", ""]
)


def _near(value: object) -> st.SearchStrategy[Any]:
    """Return another value of the same type, which may be valid."""
    match value:
        case bool():
            return st.just(not value)
        case float():
            return st.floats(0.5, 2).map(lambda factor: value * factor) | st.floats(0, 1e9)
        case int():
            return st.integers(-2, 3).map(lambda step: value + step) | st.integers(0, 2**62)
        case str():
            return WORDS | TEXTS
        case [float(), *_]:
            return st.lists(st.floats(0, 1e-3) | st.floats(0, 1), max_size=30).map(sorted) | st.just(value * 2)
        case _:
            return st.floats(0, 3) | st.integers(0, 3) | st.booleans() | WORDS


def _change(draw: st.DrawFn, data: Any) -> None:
    """Delete or replace one value at any place."""
    while True:
        places = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not places:
            return
        place = draw(st.sampled_from(places))
        inner = data[place]
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 9)):
            data = inner
            continue
        match draw(st.sampled_from(["nudge"] * 6 + ["replace"] * 4 + ["delete", "add"])):
            case "nudge":
                data[place] = draw(_near(inner))
            case "delete":
                del data[place]
            case "replace":
                data[place] = draw(JSON)
            case "add" if isinstance(data, dict):
                data[draw(st.text(max_size=5))] = draw(JSON)
            case "add":
                data.insert(place, copy.deepcopy(data[place]))
        return


def use(record: Record, folder: Path) -> None:
    """Run every operation on a record that was read."""
    console = Console(file=io.StringIO(), width=100)
    others = [make_record(name="other", trial_id="other", repeat=repeat) for repeat in (1, 2, 3)]
    repeats = [copy.copy(record) for _ in range(3)]
    for repeat, each in enumerate(repeats, 1):
        each.repeat = repeat
    print_table(console, [record])
    print_table(console, [*others, *repeats])
    print_job_line(console, record, 1, 2)
    print_reference_line(console, record)
    for metric in ("e2e", "itl"):
        report = build_report_of_records([*others, *repeats], typed=["other"], metric=metric)
        print_comparison(console, report)
        to_markdown(report).encode()
        json.dumps(to_json(report), allow_nan=False)
    summary = summarize(record)
    tags = trial_run._tags(record, summary, "run")
    assert all(isinstance(each, str) for each in tags.values())
    assert all(isinstance(each, str) for each in trial_run._params(record.requested).values())
    assert all(each is not None and math.isfinite(each) for each in trial_run._figures(record, summary).values())
    for point in trial_run._steps(record):
        assert math.isfinite(point.value)
        assert 0 <= point.time_ms < 2**63
    trial_run.run_name(record).encode()
    record.write(folder)


def expected(data: dict[str, Any]) -> dict[str, float | None]:
    """Compute the figures of a summary from the JSON without bench's code."""

    def median(values: list[float]) -> float | None:
        return statistics.median(values) if values else None

    calls = data.get("iterations", [])
    measured = [each for each in calls if each["phase"] == "measurement"]
    early = [each["e2e_s"] for each in calls if each["phase"] != "measurement"]
    first_s = next((each["e2e_s"] for each in calls if each["phase"] == "validation"), None)
    times = [each["token_times_s"] for each in measured if each["token_times_s"]]
    several = [each for each in times if len(each) > 1]
    size = data["requested"].get("workload", {}).get("batch_size")
    e2e = median([each["e2e_s"] for each in measured])
    spent, decoding = sum(each["e2e_s"] for each in measured), sum(each[-1] - each[0] for each in several)
    tokens = sum(map(len, times))
    joules = (data.get("energy") or {}).get("joules", [])
    known = size and tokens and len(joules) == len(measured) and None not in joules and sum(joules) > 0
    memory = [each for each in (data.get("memory") or {}).values() if isinstance(each, dict)]
    peaks = [
        [each.get(name) for each in memory if each.get(name)] for name in ("device_reserved_bytes", "host_rss_bytes")
    ]
    return {
        "e2e_s": e2e,
        "ttft_s": median([each[0] for each in times]),
        "itl_s": median([b - a for each in several for a, b in itertools.pairwise(each)]),
        "tpot_s": median([(each[-1] - each[0]) / (len(each) - 1) for each in several]),
        "output_tokens_per_s": size * tokens / spent if size and tokens and spent else None,
        "decode_tokens_per_s": size * (sum(map(len, several)) - len(several)) / decoding if size and decoding else None,
        "cold_start_s": None if data.get("warm_start") else first_s,
        "compile_excess_s": sum(max(0.0, each - e2e) for each in early) if early and e2e is not None else None,
        "peak_bytes": next((max(each) for each in peaks if each), None),
        "decode_mbu": (data.get("roofline") or {}).get("decode_mbu"),
        "joules_per_token": sum(joules) / (size * tokens) if known else None,
    }


def figures(record: Record) -> dict[str, float | None]:
    summary = vars(summarize(record))
    return {name: getattr(value, "median", value) for name, value in summary.items()}


def is_same(found: float | None, wanted: float | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return math.isclose(found, wanted, rel_tol=1e-9)


def record_or_line(text: bytes, folder: Path) -> None:
    (folder / "record.json").write_bytes(text)
    line = None
    try:
        record = Record.read(folder)
    except RecordError as error:
        line = str(error).replace(str(folder), "")
    if line is not None:
        assert is_one_line(line, 500), line
        return
    found, wanted = figures(record), expected(json.loads(text))
    assert found.keys() == wanted.keys()
    assert [name for name, value in wanted.items() if not is_same(found[name], value)] == []
    use(record, folder)


@given(text=mutated())
@examples(400)
def test_a_changed_record_is_refused_or_gives_the_figures_it_holds(tmp_path: Path, text: bytes) -> None:
    record_or_line(text, tmp_path)


@given(base=st.sampled_from(RECORDS), data=st.data())
@examples(150)
def test_a_damaged_record_is_refused_or_gives_the_figures_it_holds(
    tmp_path: Path, base: dict[str, Any], data: st.DataObject
) -> None:
    text = bytearray(json.dumps(base, indent=1).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    match data.draw(st.sampled_from(["cut", "flip", "overwrite", "repeat", "head"])):
        case "cut":
            del text[place:]
        case "flip":
            text[place] ^= 1 << data.draw(st.integers(0, 7))
        case "overwrite":
            text[place : place + 4] = data.draw(st.binary(min_size=1, max_size=4))
        case "repeat":
            text[place:place] = text[place : place + 40]
        case "head":
            text[:0] = data.draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"[", b"[" * 100_000, b"\0", b" \n"]))
    record_or_line(bytes(text), tmp_path)


# ---- comparisons -------------------------------------------------------------------------------------------------


def sweep_of(*names: str) -> list[dict[str, Any]]:
    """Build records of three repeats of each of these settings."""
    made = [
        make_record(**make_evidence(), name=name, trial_id=name, repeat=repeat, swept={"attention": name})
        for name in names
        for repeat in (1, 2, 3)
    ]
    return [each.to_dict() for each in made]


SWEEP = sweep_of("eager", "sdpa")
PLAN = {
    "schema_version": sweep_file.SCHEMA_VERSION,
    "sweep_id": "s",
    "name": "s",
    "started_at_s": 1.7e9,
    "launched_at_s": 1.7e9,
    "settings": ["eager", "sdpa"],
    "baseline": "eager",
    "jobs": [
        {"number": n, "repeat": each["repeat"], "trial_id": each["trial_id"], "name": each["name"], "swept": each["swept"],
         "folder": f"{n}_{each['name']}"}
        for n, each in enumerate(SWEEP)
    ],
}  # fmt: skip


def write_sweep(folder: Path, plan_text: bytes, record_text: bytes, place: int) -> None:
    (folder / "sweep.json").write_bytes(plan_text)
    for number, each in enumerate(SWEEP):
        below = folder / f"{number}_{each['name']}"
        below.mkdir(exist_ok=True)
        (below / "record.json").write_bytes(record_text if number == place else json.dumps(each).encode())


FILES = st.tuples(st.just(json.dumps(PLAN).encode()) | mutated([PLAN]), mutated(SWEEP[:3]), st.integers(0, 2))


@given(files=FILES, form=st.sampled_from(["text", "json", "markdown"]), metric=st.sampled_from(["e2e", "itl"]))
@examples(120)
def test_a_comparison_of_changed_files_ends_normally(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: tuple[bytes, bytes, int], form: str, metric: str
) -> None:
    write_sweep(tmp_path, *files)
    status = compare.main([str(tmp_path), "--format", form, "--metric", metric, "--fail-if-slower", "3%"])
    printed = capsys.readouterr()
    assert status in (0, 1, 2)
    assert all(is_one_line(line, 2100) for line in printed.err.splitlines())
    if status == 2:
        assert printed.err
    elif form == "json":
        json.loads(printed.out, parse_constant=pytest.fail)


@given(text=mutated([PLAN]) | st.binary(max_size=20) | st.just(b"[" * 100_000))
@examples(200)
def test_a_changed_plan_is_refused_or_read(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "sweep.json").write_bytes(text)
    line = None
    try:
        found = sweep_file.SweepFile.read(tmp_path)
    except ValueError as error:
        line = str(error).replace(str(tmp_path), "")
    if line is not None:
        assert is_one_line(line, 500), line
        return
    for each in found.jobs:
        assert (tmp_path / each.folder).parent == tmp_path
        assert each.number >= 0 < each.repeat
    found.write(tmp_path)
    assert sweep_file.SweepFile.read(tmp_path) == found
