"""What can go wrong in a way that the user can mend."""

__all__ = ["UsageError", "one_line"]


class UsageError(Exception):
    """Bad input: the command prints the message as one line and exits with code 2."""


def one_line(error: BaseException, length: int = 120) -> str:
    """The beginning of an error's message, without line breaks."""
    return " ".join(str(error).split())[:length]
