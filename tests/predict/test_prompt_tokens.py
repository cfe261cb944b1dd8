"""How many tokens a prompt has: counted where the optional tokenizer is loaded."""

import subprocess
import sys

import pytest

from penstock.errors import ConfigError
from penstock.predict import CallFeatures, load_tokenizer
from penstock.predict.features import text as features_text
from penstock.predict.features.text import COUNTED_CHARS_MAX, count_tokens

PROSE = "The miller opened the penstock, and the wheel, which had slept all winter, turned. "


@pytest.fixture(autouse=True)
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_text, "_tokenizer", None)
    load_tokenizer()


def counted(text: str) -> int:
    import bpe_openai  # not at the top: a second of CPU for every worker that collects this file

    return len(bpe_openai.get_encoding("o200k_base").encode_ordinary(text))


@pytest.mark.parametrize(
    "text", [PROSE, "def f(x):\n    return {'a': x[::-1]}", "水車はどこですか。", "<|endoftext|>"]
)
def test_a_prompt_is_counted_exactly(text: str) -> None:
    assert CallFeatures.from_prompt(text).prompt_tokens == counted(text)


def test_system_text_history_and_question_count_together() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "You are a guide."},
            {"role": "user", "content": "How deep is the lake?"},
            {"role": "assistant", "content": "Forty metres."},
            {"role": "user", "content": "And how wide?"},
        ]
    }

    call = CallFeatures.from_body(body, endpoint="chat")

    assert call.prompt_tokens == sum(counted(turn["content"]) for turn in body["messages"])


def test_a_long_prompt_is_counted_by_its_ends_within_a_few_percent() -> None:
    text = PROSE * (5 * COUNTED_CHARS_MAX // len(PROSE))

    assert CallFeatures.from_prompt(text).prompt_tokens == pytest.approx(counted(text), rel=0.02)


def test_odd_texts_are_counted_too() -> None:
    assert CallFeatures.from_prompt("").prompt_tokens == 0
    assert CallFeatures.from_prompt("\ud800 lone").prompt_tokens > 0
    assert count_tokens(["a" * 100_000], estimate=7) > 1000


def test_nobody_pays_for_a_tokenizer_that_was_not_asked_for() -> None:
    code = (
        "import sys\n"
        "from penstock.predict import CallFeatures, GuardedPredictor, OnlinePredictor\n"
        "GuardedPredictor(OnlinePredictor.shipped())\n"
        f"print(CallFeatures.from_prompt({PROSE!r}).prompt_tokens, 'bpe_openai' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    tokens, loaded = said.stdout.split()
    assert int(tokens) == pytest.approx(counted(PROSE), rel=0.2)
    assert loaded == "False"


def test_a_tokenizer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bpe_openai", None)

    with pytest.raises(ConfigError, match=r"penstock\[tokenizer\]"):
        load_tokenizer()
