"""What can go wrong in a way that the user can mend."""

__all__ = ["UsageError"]


class UsageError(Exception):
    """Bad input: the command prints the message as one line and exits with code 2."""
