"""Structure learning of Zhang et al. (2020), section 3.5 and algorithm 1: which view depends on which latent."""

from pyzoo.about import About

_PAPER = "Zhang et al. 2020"

ABOUT = {
    "mib-structure": About(
        _PAPER,
        "which view depends on which latent, learned together with the networks",
        "planted: normal variables with exact informations, strips of digits or of your own images; with environments",
        {"small": 2, "digits": 4, "environments": 2},
    ),
    "mib-structures": About(_PAPER, "planted structures, and how often they are found"),
}
