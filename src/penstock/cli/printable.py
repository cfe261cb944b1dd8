"""Names that come from files, as a terminal may have them."""


def printable(name: str) -> str:
    """Return a name without escapes and lone surrogates, which are spelt out instead.

    Whoever hands it to rich wraps it in a `Text`, or its brackets are read as markup.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
