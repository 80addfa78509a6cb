"""CompVAE (Berger and Sebag 2019) on its two problems."""

from pyzoo.about import About

_PAPER = "Berger and Sebag 2019"

ABOUT = {
    "compvae-sines": About(
        _PAPER,
        "taking a curve apart into sines, and putting others together",
        "generated curves",
        {"small": 5, "long": 120, "paper": None},
    ),
    "compvae-colors": About(
        _PAPER,
        "composing an image from colored sites, one by one",
        "generated images",
        {"small": 20, "long": 180, "paper": None},
    ),
}
