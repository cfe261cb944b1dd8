"""A multipart form is the same call as its JSON would be; of its files only sizes are kept."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.endpoint import IMAGE_EDITS, SPEECH, TRANSCRIPTIONS
from penstock.calls.facts import facts_of
from penstock.calls.form import MOST_FIELD_BYTES, FilePart, FormError, FormReader, form_of
from penstock.calls.spec import RequestSpec, TablePredictor
from penstock.core.model import TrafficClass


def written(data: dict[str, str], files: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the type and the bytes of a form as an SDK sends it."""
    parts = {name: (f"{name}.bin", content) for name, content in files.items()}
    request = httpx2.Request("POST", "http://x", data=data, files=parts)
    return request.headers["content-type"], request.read()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_form_reads_the_same_in_whatever_pieces_it_comes(content: bytes, size: int) -> None:
    kind, body = written({"model": "whisper-1", "n": "2", "stream": "true"}, {"file": content})
    reader = FormReader(kind)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])

    expected = {"model": "whisper-1", "n": 2, "stream": True, "file": FilePart(len(content))}
    assert reader.fields() == form_of(kind, body) == expected


def test_fields_that_stand_twice_are_a_list_and_long_ones_are_cut() -> None:
    kind, body = written({"prompt": "p" * 100_000}, {"image": b"12"})
    twice = body.replace(b'name="image"', b'name="image[]"')
    boundary = kind.partition("boundary=")[2].encode()
    first, _, _ = twice.rpartition(b"--" + boundary + b"--")
    fields = form_of(kind, first + twice)

    assert fields["image"] == [FilePart(2), FilePart(2)]
    assert all(len(text) == MOST_FIELD_BYTES for text in fields["prompt"])


@pytest.mark.parametrize(
    ("kind", "body", "rule"),
    [
        ("multipart/form-data", b"", "name the form's boundary"),
        ("multipart/form-data; boundary=x", b"hello", "is not the multipart form"),
        ("multipart/form-data; boundary=x", b"--x\r\n", "cut short"),
        (f"multipart/form-data; boundary={'x' * 300}", b"", "cannot be one"),
    ],
)
def test_what_is_no_form_is_told_by_its_rule(kind: str, body: bytes, rule: str) -> None:
    with pytest.raises(FormError, match=rule):
        form_of(kind, body)


def test_a_minute_of_sound_is_estimated_by_its_seconds() -> None:
    kind, body = written({"model": "whisper-1"}, {"file": bytes(960_000)})
    facts = facts_of(TRANSCRIPTIONS, form_of(kind, body))
    spec = RequestSpec(endpoint="transcriptions", facts=facts)
    estimate = TablePredictor().predict(spec, TrafficClass("any")).estimate

    assert (facts.model, facts.units, facts.prompt_tokens) == ("whisper-1", 60.0, 1001)
    assert (estimate.p50_tokens, estimate.p90_tokens) == (180.0, 360.0)


def test_a_minute_of_speech_is_estimated_by_its_text() -> None:
    facts = facts_of(SPEECH, {"model": "tts-1", "input": "x" * 900, "stream_format": "sse"})

    assert (facts.units, facts.streams) == (60.0, True)


def test_an_edit_without_a_model_is_for_the_vendors_default() -> None:
    kind, body = written({"n": "2", "quality": "low"}, {"image": b"PNG"})
    facts = facts_of(IMAGE_EDITS, form_of(kind, body))

    assert (facts.model, facts.problems) == ("dall-e-2", ())
    assert facts.units == pytest.approx(2 * 272 / 1056)
