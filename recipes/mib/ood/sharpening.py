"""Environments sharpened: each labeled image goes to the environment that image and label together point to most.

Environments that differ little tell little: at color flips of 0.2 and 0.1 the color is the label in 0.8 and 0.9 of the images,
and e holds 0.010 nats about whether they agree. But what points to e, given image and label, is nothing else than that agreement.
A small network learns p(e | x, y) from the training environments; grouped by it, images whose color is their label stand on one
side and the others on the other. In a batch that takes as many from each group, the color then tells nothing of the label.

This assumes that environments differ in how a feature agrees with the label, and that this agreement is independent of the
label and of what should remain. It is not in Zhang et al. (2020); it is close to Creager, Jacobsen and Zemel (2021), "Environment
inference for invariant learning", who infer groups where there are no environments, and to Bao, Chang and Barzilay (2021),
"Predict then interpolate", who group by errors of one environment's predictor in another.
"""

import math

import torch
from torch import Tensor, nn

from pyzoo.checks import as_indices, require_floating, require_shape
from pyzoo.random import seeded

__all__ = ["sharpened_environments"]

_STEPS, _BATCH, _HIDDEN = 150, 5000, 64
_LEARNING_RATE, _WEIGHT_DECAY, _DROPOUT = 3e-3, 6e-3, 0.5  # less of either, and the network learns single images by heart


def sharpened_environments(images: Tensor, labels: Tensor, environments: Tensor, seed: int = 0) -> Tensor:
    r"""The environments that images and labels point to: argmax over e of p(e | x, y) / p(e | y).

    Args:
        images: (examples, ...), from 0 to 1.
        labels: (examples,), 0 or 1.
        environments: (examples,), integer.
        seed: of the network that learns p(e | x, y), and of its batches.

    Returns:
        (examples,), int64.

    Raises:
        ValueError: these are no images, labels and environments of the same examples.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y, e = torch.randint(2, (2, 4000), generator=generator)
        >>> wrong = torch.rand(4000, generator=generator) < torch.tensor([0.3, 0.1])[e]
        >>> color = y ^ wrong.long()
        >>> groups = sharpened_environments(torch.nn.functional.one_hot(color, 2).float(), y, e)
        >>> bool((groups[wrong] == 0).all() and (groups[~wrong] == 1).all())  # the first has more that are wrong
        True
    """
    require_floating(images, "images")
    labels, environments = as_indices(labels, "labels", below=2), as_indices(environments, "environments")
    for name, values in (("labels", labels), ("environments", environments)):
        require_shape(values, name, (len(images),))
    sign = (2 * labels - 1).to(images.dtype).unsqueeze(1)
    features = torch.cat([images.flatten(1) * sign, sign], 1)  # what a pixel says for the label, or against it
    number = int(environments.max()) + 1
    generator = seeded(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Dropout(_DROPOUT), nn.Linear(features.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, number)]
        network = nn.Sequential(*layers)  # with torch's small weights: larger ones learn single images by heart
        optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        for _ in range(_STEPS):
            rows = torch.randint(len(features), (min(_BATCH, len(features)),), generator=generator)
            with torch.enable_grad():
                loss = nn.functional.cross_entropy(network(features[rows]), environments[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        network.eval()
    counts = torch.bincount(labels * number + environments, minlength=2 * number).view(2, number)
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).log()
    with torch.no_grad():
        logits = torch.cat([network(block) for block in features.split(_BATCH)])
    scores = logits.log_softmax(-1) - shares[labels]
    return scores.masked_fill(counts[labels] == 0, -math.inf).argmax(-1)  # no label goes where it never is
