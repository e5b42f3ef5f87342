"""Test that secrets are replaced everywhere and other text is unchanged."""

from __future__ import annotations

import json
import os
import stat
import time
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.host.secrets import MASK, PUBLIC, has_credentials, scrub, scrub_file, scrub_texts, without_credentials
from bench.results import record as records
from bench.results.record import Record
from factories import make_evidence, make_record

TOKEN = "hf_Recognise4ble0123456789"
HARD = 'pä"ss\\wo/rd@1 x'


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    """Return an environment without the login of the current user."""
    return {"HF_HOME": str(tmp_path), **variables}


@pytest.mark.parametrize(
    ("uri", "shown", "has"),
    [
        ("http://localhost:5000", "http://localhost:5000", False),
        ("sqlite:///x.db", "sqlite:///x.db", False),
        ("sqlite:////a:b@c/x.db", "sqlite:////a:b@c/x.db", False),
        ("postgresql://host/db", "postgresql://host/db", False),
        ("postgresql://me@host/db", "postgresql://host/db", False),
        ("https://me:@host/", "https://host/", False),
        ("databricks", "databricks", False),
        ("databricks://profile", "databricks://profile", False),
        ("databricks://scope:prefix", "databricks://scope:prefix", False),
        ("http://host:5000/runs/a@b", "http://host:5000/runs/a@b", False),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b", False),
        ("http://[bad/a", "http://[bad/a", False),
        ("https://host/x?page=2#top", "https://host/x", False),
        ("", "", False),
        ("http://me:pw@host:5000/x", "http://host:5000/x", True),
        ("https://:pw@host", "https://host", True),
        ("postgresql://me:p@ss@host/db", "postgresql://host/db", True),
        ("postgresql://me:p/ss@host/db", "postgresql://host/db", True),
        ("postgresql://me:p?s#s@host/db", "postgresql://host/db", True),
        ("mysql+pymysql://me:12345@host:3306/db", "mysql+pymysql://host:3306/db", True),
        ("postgresql://host/db?user=me&password=pw", "postgresql://host/db", True),
        ("https://host/x?access_token=abc", "https://host/x", True),
        (f"https://{TOKEN}@host/x", "https://host/x", True),
        ("sqlite+pysqlcipher://:pw@/x.db", "sqlite+pysqlcipher:///x.db", True),
    ],
)
def test_credentials_in_an_address_are_detected_and_removed(uri: str, shown: str, has: bool) -> None:
    assert without_credentials(uri) == shown
    assert has_credentials(uri) is has


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY", "DATABRICKS_TOKEN", "PGPASSWORD", "MYSQL_PWD", "OPENAI_API_KEY", "WANDB_API_KEY",
        "APIKEY", "DB_CREDENTIALS", "GIT_AUTH", "ssh_passphrase", "AZURE_STORAGE_ACCOUNT_KEY",
    ],
)  # fmt: skip
def test_variables_with_secret_names_are_secret(tmp_path: Path, name: str) -> None:
    assert scrub(f"a {TOKEN} b", environment(tmp_path, **{name: TOKEN})) == f"a {MASK} b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "falsehood"),
        ("PWD", "/srv/folder"),
        ("OLDPWD", "/srv/folder"),
        ("GIT_AUTHOR_NAME", "Someone"),
        ("KEYBOARD", "german-layout"),
        ("MAX_TOKENS", "4096000"),
        ("USE_TOKEN", "true"),
        ("SOME_TOKEN", "short"),
        ("SOME_TOKEN", "1e-0512"),
        ("SOME_SECRET", "measurement"),
        ("GOOGLE_APPLICATION_CREDENTIALS", str(Path(__file__).parent)),
    ],
)
def test_harmless_values_are_kept(tmp_path: Path, name: str, value: str) -> None:
    text = f"a {value} b"
    assert scrub(text, environment(tmp_path, **{name: value})) is text


def test_every_form_of_a_secret_is_replaced(tmp_path: Path) -> None:
    forms = [HARD, repr(HARD), json.dumps(HARD), json.dumps(HARD, ensure_ascii=False),
             urllib.parse.quote(HARD), urllib.parse.quote(HARD, safe=""), urllib.parse.quote_plus(HARD)]  # fmt: skip
    secret = environment(tmp_path, PGPASSWORD=HARD)
    for form in forms:
        assert "ss" not in scrub(f"x {form} y", secret).replace(MASK, "")
        for ascii_only in (True, False):
            written = scrub(json.dumps({"a": [form]}, ensure_ascii=ascii_only), secret)
            assert "ss" not in json.loads(written)["a"][0]


def test_the_longest_of_several_secrets_is_replaced_first(tmp_path: Path) -> None:
    secret = environment(tmp_path, A_TOKEN="abcdef-ghijkl", B_TOKEN="abcdef")
    assert scrub("abcdef-ghijkl abcdef", secret) == f"{MASK} {MASK}"


def test_passwords_in_any_address_are_replaced_and_ports_are_not(tmp_path: Path) -> None:
    nothing = environment(tmp_path)
    assert scrub("at postgresql://me:pw@host/db.", nothing) == f"at postgresql://me:{MASK}@host/db."
    assert scrub("https://:p/w@host", nothing) == f"https://:{MASK}@host"
    for harmless in ("http://host:5000/a@b", "http://host:5000, me@host", "http://host:5000\nme@host", "me:you@host"):
        assert scrub(harmless, nothing) is harmless


def test_a_password_of_an_address_variable_is_replaced_on_its_own_too(tmp_path: Path) -> None:
    secret = environment(tmp_path, MLFLOW_TRACKING_URI="http://me:hunter%202@host:5000")
    assert scrub('FATAL: "hunter 2" and hunter%202', secret) == f'FATAL: "{MASK}" and {MASK}'


@pytest.mark.parametrize(
    "name", ["password", "sslpassword", "access_token", "X-Amz-Signature", "X-Amz-Security-Token", "api_key", "sig"]
)
def test_a_secret_in_the_query_of_an_address_is_replaced(tmp_path: Path, name: str) -> None:
    secret = environment(tmp_path, STUDY=f"postgresql://host/db?user=someone&{name}=hunter%202&x=1")
    assert scrub(f"at https://host/x?a=1&{name}=pw&b=2#c", secret) == f"at https://host/x?a=1&{name}={MASK}&b=2#c"
    assert scrub('FATAL: "hunter 2" and hunter%202', secret) == f'FATAL: "{MASK}" and {MASK}'
    once = scrub(json.dumps({"a": json.dumps([f"x://y?{name}=pw"])}), secret)
    assert json.loads(json.loads(once)["a"]) == [f"x://y?{name}={MASK}"]


def test_other_queries_are_kept(tmp_path: Path) -> None:
    nothing = environment(tmp_path)
    for harmless in (
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=5e61f7c59dc729c0",
        "https://host/x?num_tokens=3&tokenizer=a&keyboard=de&author=me",
        "what? password=x",
    ):
        assert scrub(harmless, nothing) == harmless


def test_several_texts_are_scrubbed_like_single_ones(tmp_path: Path) -> None:
    secret = environment(tmp_path, PGPASSWORD=HARD)
    many = [f"x {HARD} y", "", "a", json.dumps({"a": HARD}), repr(HARD), "http://me:pw@host", "\\n", "ü\ud800"]
    assert scrub_texts(many, secret) == [scrub(each, secret) for each in many]


@pytest.mark.parametrize("where", ["HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_token_of_the_hub_s_login_is_replaced(tmp_path: Path, where: str) -> None:
    below = {"HF_TOKEN_PATH": "token", "HF_HOME": "token", "XDG_CACHE_HOME": "huggingface/token",
             "HOME": ".cache/huggingface/token"}[where]  # fmt: skip
    file = tmp_path / below
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{TOKEN}\n", encoding="utf-8")
    place = file if where == "HF_TOKEN_PATH" else tmp_path
    assert scrub(f"Bearer {TOKEN}", {where: str(place)}) == f"Bearer {MASK}"


def test_the_environment_of_this_process_is_searched(monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert scrub(TOKEN) == MASK


def test_a_records_own_keys_and_words_are_kept_for_any_password(tmp_path: Path) -> None:
    """A password equal to such a word must not lose a measurement."""
    record = make_record(**make_evidence())
    words = {*records.STATUSES, *records.STAGES, *records.PHASES, *records.KINDS, *records.COMPILATIONS,
             *records.PHASE_STATUSES}  # fmt: skip
    assert {each for each in words if len(each) >= 6} <= PUBLIC
    keys: set[str] = set()
    json.loads(json.dumps(record.to_dict()), object_hook=keys.update)
    assert len(keys) > 100
    secret = environment(tmp_path, **{f"N{n}_TOKEN": each for n, each in enumerate(sorted(keys | words))})
    path = tmp_path / "record.json"
    path.write_text(scrub(json.dumps(record.to_dict()), secret), encoding="utf-8")
    assert Record.read(path).iterations == record.iterations


SYNTAX = st.text(st.sampled_from('nu"\\/0e5,:[]{} a\nét*'), min_size=6, max_size=12)


@given(
    secret=SYNTAX,
    around=SYNTAX,
    number=st.floats(allow_nan=False, allow_infinity=False),
    indent=st.sampled_from([None, 1]),
)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_scrubbed_json_stays_valid_and_keeps_its_numbers(
    secret: str, around: str, number: float, indent: int | None
) -> None:
    data = {
        "texts": [secret, around + secret + around, f"\n{secret}", around],
        "numbers": [number, 12345678, None, True],
    }
    for ascii_only in (True, False):
        scrubbed = scrub(
            json.dumps(data, indent=indent, ensure_ascii=ascii_only), {"A_TOKEN": secret, "HF_HOME": "/nowhere"}
        )
        read = json.loads(scrubbed)
        assert read["numbers"] == data["numbers"]
        if MASK in read["texts"][0]:
            assert secret.strip() not in "".join(read["texts"]).replace(MASK, "\0")


@given(text=st.text(), secret=st.text(min_size=6).filter(lambda each: "\0" not in each))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_any_text_and_any_secret_can_be_scrubbed(text: str, secret: str) -> None:
    scrub(text + secret, {"A_TOKEN": secret, "B_SECRET": "\udcff" * 8, "HF_HOME": secret})
    without_credentials(f"{text}://{secret}")
    has_credentials(f"{text}://{secret}")


def test_a_log_is_scrubbed_in_place_with_its_mode_and_its_bytes(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(b"\xff\xfe not UTF-8 " + TOKEN.encode() + b"\r\n{" + TOKEN.encode())
    log.chmod(0o640)
    secret = environment(tmp_path, HF_TOKEN=TOKEN)
    assert scrub_file(log, secret) is True
    assert log.read_bytes() == b"\xff\xfe not UTF-8 ***\r\n{***"
    assert stat.S_IMODE(log.stat().st_mode) == 0o640
    inode = log.stat().st_ino
    assert scrub_file(log, secret) is False
    assert log.stat().st_ino == inode
    assert [each.name for each in tmp_path.iterdir()] == ["worker.log"]


def test_a_missing_log_is_no_error(tmp_path: Path) -> None:
    assert scrub_file(tmp_path / "worker.log", environment(tmp_path)) is False


def test_a_log_that_cannot_be_rewritten_stays_complete(tmp_path: Path, monkeypatch) -> None:
    log = tmp_path / "worker.log"
    log.write_text(TOKEN, encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space"):
        scrub_file(log, environment(tmp_path, HF_TOKEN=TOKEN))
    monkeypatch.undo()
    assert log.read_text(encoding="utf-8") == TOKEN
    assert [each.name for each in tmp_path.iterdir()] == ["worker.log"]


def test_long_texts_are_scrubbed_quickly(tmp_path: Path) -> None:
    """The bound is far above the usual 0.1 s and far below the time of a backtracking expression over 16 MB."""
    secret = environment(tmp_path, **{f"N{number}_TOKEN": f"{TOKEN}{number}" for number in range(20)})
    lines = "a line of a log that names http://localhost:5000/api and more\n" * 260_000
    runs = "http://" + "a" * 8_000_000 + ":" + "b" * 8_000_000
    start = time.process_time()
    assert scrub(lines, secret) is lines
    assert scrub(runs, secret) is runs
    assert scrub(lines + TOKEN + "7", secret).endswith(f"more\n{MASK}")
    assert time.process_time() - start < 10
