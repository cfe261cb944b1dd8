"""What each account was last refused with, for those who are refused on its account later."""

MOST_ACCOUNTS = 1024
"""The accounts remembered; the one refused longest ago goes first."""


class LastWords:
    """The last refusal's words, by account."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        """Know nothing."""
        self._words: dict[str, str] = {}

    def note(self, account: str, words: str) -> None:
        """Remember what an account was refused with; nothing, if the provider said nothing."""
        self._words.pop(account, None)
        self._words[account] = words
        while len(self._words) > MOST_ACCOUNTS:
            self._words.pop(next(iter(self._words)), None)

    def of(self, account: str) -> str:
        """Return the words; empty if there are none."""
        return self._words.get(account, "")
