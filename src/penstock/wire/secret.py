"""A key that never shows itself, and the one rule for what a key may be."""

LEAST_HIDDEN = 8
"""Characters of a key that is hidden where a text quotes it: a shorter one may be a word."""


class KeyProblem(ValueError):
    """A text that cannot be a key. The message says why, and holds nothing of the text.

    Attributes:
        rule: what a key must be.
        likely: what probably went wrong.

    """

    def __init__(self, rule: str, likely: str) -> None:
        """Keep both, for messages of one form or another."""
        super().__init__(f"{rule}: {likely}")
        self.rule = rule
        self.likely = likely


class Secret:
    """Holds a key. Its repr, str and format say nothing; `reveal` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep the key."""
        self._value = value

    @classmethod
    def of(cls, text: str | None) -> "Secret":
        """Return the key that an environment variable holds, without the space around it.

        What is let through here goes into a header: a line break would be refused there by the
        HTTP library, in a message that quotes the whole header.

        Raises:
            KeyProblem: it holds none.

        """
        value = (text or "").strip()
        if not value:
            raise KeyProblem(
                "names an environment variable that is not set or empty",
                "is it exported where penstock starts?",
            )
        if not value.isascii() or not value.isprintable() or " " in value:
            raise KeyProblem(
                "must hold a key of printable ASCII without spaces",
                "did a line break or two keys get in?",
            )
        if value[0] in "\"'" or value[-1] in "\"'":
            raise KeyProblem(
                "must hold a key without quotes", "was a line of an .env file taken as it stands?"
            )
        return cls(value)

    def reveal(self) -> str:
        """Return the key itself. Call it where it goes on the wire, nowhere else."""
        return self._value

    def hidden_in(self, text: bytes) -> bytes:
        """Return a provider's text with stars where it quotes the key."""
        key = self._value.encode()
        return text.replace(key, b"*" * len(key)) if len(key) >= LEAST_HIDDEN else text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled: it would leave the process")
