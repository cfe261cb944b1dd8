"""Anthropic's SDK: a streamed message, and threads that share one scheduler.

Start a provider in another terminal: penstock mock
"""

import os
from concurrent.futures import ThreadPoolExecutor

from anthropic import Anthropic

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")
client = Anthropic(base_url=URL, api_key="any", http_client=penstock.client())


def title(number: int) -> int:
    """Return how many tokens a title took."""
    reply = client.messages.create(
        model="mock",
        max_tokens=20,
        messages=[{"role": "user", "content": f"A title for chapter {number}, please."}],
    )
    return reply.usage.output_tokens


def main() -> None:
    """Stream one message, then ask for twelve titles from six threads."""
    with client.messages.stream(
        model="mock",
        max_tokens=60,
        messages=[{"role": "user", "content": "Tell me about mills."}],
    ) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
    print()
    with penstock.request(class_="batch"), ThreadPoolExecutor(6) as pool:
        tokens = sum(pool.map(title, range(12)))
    print(f"12 titles took {tokens} tokens")


if __name__ == "__main__":
    main()
