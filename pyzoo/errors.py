"""What can go wrong in a way that the user can mend."""

__all__ = ["UsageError", "one_line", "printable"]


class UsageError(ValueError):
    """Bad input, in one line: the command prints it and exits with code 2; in Python it is a ValueError."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """A text on one line: line breaks and other characters that can't be printed, as names of files may have, as escapes.

    Example:
        >>> printable("a\\nb")
        'a\\\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def one_line(error: BaseException, length: int = 120) -> str:
    """The beginning of an error's message, without line breaks."""
    return " ".join(str(error).split())[:length]
