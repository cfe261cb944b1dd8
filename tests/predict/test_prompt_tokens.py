"""How many tokens a prompt has: counted where the optional tokenizer is installed."""

import subprocess
import sys

import bpe_openai
import pytest

from penstock.predict import CallFeatures
from penstock.predict.features.prompt_tokens import COUNTED_CHARS_MAX, count_tokens

PROSE = "The miller opened the penstock, and the wheel, which had slept all winter, turned. "


def counted(text: str) -> int:
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


def test_without_the_tokenizer_the_estimate_stands() -> None:
    code = (
        "import sys; sys.modules['bpe_openai'] = None\n"
        "import importlib.util as u; known = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'bpe_openai' else known(name, *more)\n"
        "from penstock.predict import CallFeatures\n"
        f"print(CallFeatures.from_prompt({PROSE!r}).prompt_tokens)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(said.stdout) == pytest.approx(counted(PROSE), rel=0.2)
