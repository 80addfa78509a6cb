"""Trained models that come with the package, each in a folder of its name: ``pyzoo.load("mib-digits")`` loads one.

``docs/trained.py`` makes them from finished runs. A folder's ``README.md`` says what the model is, what it was trained on and how
good it is.
"""

from pathlib import Path

__all__ = ["about_trained", "find_trained", "trained"]

_FOLDER = Path(__file__).parent


def trained() -> list[str]:
    """The names of the trained models.

    Example:
        >>> "mib-digits" in trained()
        True
    """
    return sorted(file.parent.name for file in _FOLDER.glob("*/config.json"))


def about_trained(name: str) -> str:
    """The first sentence of a trained model's card."""
    card = (_FOLDER / name / "README.md").read_text(encoding="utf-8")
    return next(" ".join(block.split()) for block in card.split("\n\n") if not block.startswith("#"))


def find_trained(name: str) -> Path | None:
    """The folder of a trained model; None if there is none of the name."""
    return _FOLDER / name if name in trained() else None
