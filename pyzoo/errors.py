"""What can go wrong in a way that the user can mend."""

__all__ = ["UsageError", "one_line"]


class UsageError(ValueError):
    """Bad input, in one line: the command prints it and exits with code 2; in Python it is a ValueError."""


def one_line(error: BaseException, length: int = 120) -> str:
    """The beginning of an error's message, without line breaks."""
    return " ".join(str(error).split())[:length]
