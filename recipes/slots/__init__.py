"""Scenes taken apart into slots.

MONet (Burgess et al. 2019), Genesis (Engelcke et al. 2020), and the message passing prior on both (Ren et al. 2023).
"""

from pyzoo.about import About

ABOUT = {
    "monet": About(
        "Burgess et al. 2019",
        "scenes taken apart into slots, without labels",
        "tetrominoes, sprites; own images",
        {"small": 45, "long": 600, "paper": None},
    ),
    "genesis": About(
        "Engelcke et al. 2020",
        "scenes taken apart into slots, and drawn slot by slot",
        "sprites, tetrominoes; own images",
        {"small": 60, "long": 500, "paper": None},
    ),
    "mpp-genesis": About(
        "Ren et al. 2023",
        "Genesis with a prior of what relates the slots of a scene",
        "sprites, tetrominoes; own images",
        {"small": 60, "long": 500, "paper": None},
    ),
    "mpp-monet": About(
        "Ren et al. 2023",
        "MONet with a prior of what relates the slots of a scene",
        "tetrominoes, sprites; own images",
        {"small": 45, "long": 600, "paper": None},
    ),
    "mpp-table5": About("Ren et al. 2023", "pieces of scenes separated, and relations among them"),
    "mpp-ablations": About("Ren et al. 2023", "the message passing prior with other sizes"),
}
