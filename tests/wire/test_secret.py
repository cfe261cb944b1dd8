"""One rule says what a key may be, and no message shows one."""

import pytest

from penstock.wire.secret import KeyProblem, Secret

KEY = "sk-1234567890abcdef"


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"  {KEY}\r\n", f"\t{KEY}"])
def test_space_around_a_key_is_no_part_of_it(text: str) -> None:
    assert Secret.of(text).reveal() == KEY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "not set or empty"),
        (" \r\n", "not set or empty"),
        (f"{KEY}\r{KEY}", "printable ASCII"),
        (f"{KEY}\nx: y", "printable ASCII"),
        (f"{KEY} {KEY}", "without spaces"),
        (f"{KEY}\x00", "printable ASCII"),
        (f"{KEY}\u200b", "printable ASCII"),
        (f'"{KEY}"', "without quotes"),
        (f"'{KEY}'", "without quotes"),
    ],
)
def test_a_text_that_is_no_key_is_refused_without_being_shown(text: str | None, says: str) -> None:
    with pytest.raises(KeyProblem, match=says) as raised:
        Secret.of(text)
    assert KEY not in str(raised.value)


def test_a_key_shows_itself_to_nobody() -> None:
    secret = Secret.of(KEY)
    assert KEY not in f"{secret} {secret!r}"
