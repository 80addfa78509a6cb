"""Section 6 of Zhang et al. (2020): predictions that hold in environments that training has not seen."""

from pyzoo.about import About

_PAPER = "Zhang et al. 2020"

ABOUT = {
    "mib-ood": About(
        _PAPER,
        "a label from what is the same in all environments: colored MNIST",
        "MNIST, Fashion-MNIST, digits, own images with classes; colored",
        {"small": 3, "digits": 1},
    ),
    "mib-table4": About(_PAPER, "colored MNIST: accuracy in training environments and in another one"),
}
