"""JSON comes back as it was read, whatever JavaScript made of it."""

from penstock.wire import jsonio


def test_half_an_emoji_is_written_as_it_was_read() -> None:
    text = b'{"a":"ha \\ud83d","b":["\xc3\xa9\xf0\x9f\x98\x80"]}'
    assert jsonio.dumps(jsonio.loads(text)) == text
