"""`penstock predict` reads what exports and crashes leave, or says in one line why it cannot."""

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from penstock.cli.group import group

ROW = {"prompt": "Name one word for tides", "output_tokens": 7}
LINE = json.dumps(ROW).encode() + b"\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    monkeypatch.chdir(tmp_path)
    return lambda words: CliRunner().invoke(group, ["predict", *words.split()])


def refused(result: Result) -> str:
    """Return the one line that says why; a traceback would be an exception other than an exit."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    return " ".join(result.stderr.split())


def table(path: Path, **columns: Any) -> None:
    parquet.write_table(pa.table(columns), path, compression="snappy", use_dictionary=False)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("NaN", "is it a missing value"),
        ("Infinity", "is it a missing value"),
        ("1e30", "something other than tokens"),
        ("1" + "0" * 400, "something other than tokens"),
        ("-1", "is it a missing value"),
        ("true", "a truth value is no number"),
        ('"7"', "was the number written in quotes?"),
        ("null", "is the field there"),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        "evaluate --test bad.jsonl",
        "evaluate --test bad.jsonl --online --json out.json",
        "evaluate --train bad.jsonl --test bad.jsonl",
        "train bad.jsonl --out out.npz",
        "train bad.jsonl --learner boosted --out out.npz",
    ],
)
def test_a_count_that_is_none_is_refused_with_its_row(
    run: Callable[[str], Result], value: str, cause: str, words: str
) -> None:
    bad = f'{{"prompt": "x", "output_tokens": {value}}}\n'
    Path("bad.jsonl").write_bytes(LINE + bad.encode())

    said = refused(run(words))

    assert "bad.jsonl, line 2: `output_tokens` is " in said
    assert "must be a finite number from 0 to 10,000,000" in said
    assert cause in said


@pytest.mark.parametrize("value", ['"100"', "[100]", "Infinity", "1" + "0" * 400, "true"])
def test_a_cap_that_is_no_number_is_refused_with_its_row(
    run: Callable[[str], Result], value: str
) -> None:
    bad = f'{{"prompt": "x", "output_tokens": 7, "max_tokens": {value}}}\n'
    Path("bad.jsonl").write_bytes(LINE + bad.encode())

    said = refused(run("evaluate --test bad.jsonl"))

    assert "bad.jsonl, line 2: `max_tokens` is " in said


def test_a_row_of_parquet_is_named_by_its_number(
    run: Callable[[str], Result], tmp_path: Path
) -> None:
    table(tmp_path / "bad.parquet", prompt=["a", "b"], output_tokens=[3.0, float("nan")])

    assert "bad.parquet, row 2: `output_tokens` is nan" in refused(
        run("evaluate --test bad.parquet")
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + LINE),
        ("packed.jsonl.gz", gzip.compress(LINE)),
        ("blank.jsonl", b"\n" + LINE + b"\r\n"),
        ("whole.jsonl", LINE.rstrip()),
    ],
    ids=["bom", "packed", "blank lines", "no newline"],
)
def test_json_lines_may_have_a_bom_be_packed_or_end_without_a_newline(
    run: Callable[[str], Result], name: str, data: bytes
) -> None:
    Path(name).write_bytes(data)

    assert run(f"evaluate --test {name} --json out.json").exit_code == 0

    assert json.loads(Path("out.json").read_text())["n"] == 1


@pytest.mark.parametrize("name", ["up.PARQUET", "short.pq", "export"])
def test_parquet_is_known_by_its_content_and_may_count_in_decimals(
    run: Callable[[str], Result], tmp_path: Path, name: str
) -> None:
    counts = pa.array([Decimal("7.00")])
    table(tmp_path / name, prompt=["a"], output_tokens=counts, max_tokens=counts)

    assert run(f"evaluate --test {name}").exit_code == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (LINE + '{"prompt": "café"}\n'.encode("latin-1"), "line 2: is not UTF-8 (byte 0xe9"),
        (LINE.decode().encode("utf-16"), "line 1: is not UTF-8 (byte 0xff"),
        (gzip.compress(LINE * 100)[:-9], "cannot be read"),
        (b"[" * 200_000 + b"\n", "line 1: is not JSON"),
        (b"[1]\n", "line 1: is not a JSON object"),
        (LINE + b'{"prompt": "x", "outp', "line 2: is not JSON"),
        (b"", "has no rows"),
    ],
    ids=["latin-1", "utf-16", "cut gzip", "deep", "a list", "cut", "empty"],
)
def test_what_is_no_json_lines_is_refused_in_one_line(
    run: Callable[[str], Result], data: bytes, why: str
) -> None:
    Path("bad.jsonl").write_bytes(data)

    assert why in refused(run("evaluate --test bad.jsonl"))


def test_damaged_parquet_is_refused_in_one_line(
    run: Callable[[str], Result], tmp_path: Path
) -> None:
    good = tmp_path / "good.parquet"
    prompts = [f"prompt number {number}" for number in range(5000)]
    table(good, prompt=prompts, output_tokens=list(range(5000)))
    data = good.read_bytes()
    page, footer = bytearray(data), bytearray(data)
    page[200:400] = bytes(200)
    footer[-300:-250] = b"\xff" * 50

    for damaged in (page, footer, data[: len(data) // 2], LINE):
        (tmp_path / "bad.parquet").write_bytes(damaged)
        said = refused(run("evaluate --test bad.parquet"))
        assert "bad.parquet: is not a parquet file, or a damaged one" in said
