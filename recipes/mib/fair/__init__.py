"""Section 5 of Zhang et al. (2020): representations that tell what is to be predicted, and not the sensitive attribute."""

from pyzoo.about import About

_PAPER = "Zhang et al. 2020"

ABOUT = {
    "mib-fair": About(
        _PAPER,
        "representations of a table's rows that do not tell a sensitive attribute",
        "Adult, German credit, a synthetic table; own tables",
        {"adult": 1, "german": 1, "synthetic": 1},
    ),
    "mib-table3": About(_PAPER, "accuracy and unfairness of a linear classifier on fair representations"),
}
