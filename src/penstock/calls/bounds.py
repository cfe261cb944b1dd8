"""What a count in a body or a header may be, before it means nothing."""

MOST_TOKENS = 10_000_000
"""A reply or a cap above this is no length: no provider's context holds a tenth of it for output.
What is stated beyond it would only bend the sums that it enters."""

MOST_CHOICES = 128
"""What OpenAI takes for `n`; it multiplies the estimate, so it must be bounded."""

MOST_PROMPTS = 2048
"""What OpenAI takes for the items of one body."""


def count_in(value: object) -> int | None:
    """Return a whole number of JSON, 0 or above; None for all else: true, "7", 1.5 and NaN."""
    if type(value) is int:
        return value if value >= 0 else None
    if type(value) is float and value >= 0 and value.is_integer():  # 1e2; NaN and inf are none
        return int(value)
    return None
