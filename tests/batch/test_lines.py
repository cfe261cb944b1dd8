"""A batch file is looked through before anything is sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.batch.lines import BatchError, inspect, parse_line, requests_in
from tests.batch.files import batch_file, request


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hello", "no JSON object"),
        ({**request(1), "custom_id": ""}, "custom_id='' must be a string"),
        ({**request(1), "custom_id": None}, "custom_id=None must be a string"),
        ({**request(1), "custom_id": 7}, "custom_id=7 must be a string"),
        ({"url": "/v1/chat/completions", "body": {}}, "custom_id=None must be a string"),
        ({**request(1), "method": "GET"}, "method='GET' must be POST"),
        ({**request(1), "url": "/v1/models"}, "url='/v1/models' is no endpoint"),
        ({**request(1), "url": 7}, "url=7 is no endpoint"),
        ({**request(1), "body": []}, "body must be an object"),
        (request(1, stream=True), "body.stream must not be set"),
        (request(0), "custom_id='r0' stands on line 1 already"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, line: Any, says: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(request(0)) + "\n\n" + text + "\n")
    with pytest.raises(BatchError, match=f"line 3: {says.split('[', maxsplit=1)[0]}"):
        inspect(path)


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/chat/completions"])
def test_a_line_may_name_its_endpoint_as_azures_files_do(url: str) -> None:
    line = parse_line(1, json.dumps({**request(1), "url": url}).encode())
    assert line.endpoint.path == "/v1/chat/completions"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("\n\n")
    with pytest.raises(BatchError, match="holds no request"):
        inspect(tmp_path / "in")


def test_only_the_first_ten_complaints_are_shown(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x\n" * 100)
    with pytest.raises(BatchError) as raised:
        inspect(tmp_path / "in")
    assert str(raised.value).count("no JSON object") == 10
    assert str(raised.value).endswith("what comes after was not looked at")


def test_blank_lines_are_no_requests_but_keep_their_numbers(tmp_path: Path) -> None:
    path = batch_file(tmp_path, 2)
    path.write_text(path.read_text().replace("\n", "\n\n", 1))
    found = inspect(path)
    assert (found.requests, found.last_line) == (2, 3)
    assert [number for number, _ in requests_in(path)] == [1, 3]
