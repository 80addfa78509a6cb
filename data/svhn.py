"""Street View House Numbers: photographs of house numbers, 32x32, with the labeled digit in the middle.

The files are named as torchvision names them, ``train_32x32.mat`` and ``test_32x32.mat``, and are looked for as
:mod:`pyzoo.data.places` describes.

Source: Netzer et al. (2011), "Reading Digits in Natural Images with Unsupervised Feature Learning", format 2.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyzoo.data.images import Split
from pyzoo.data.places import downloading, find_file, read_whole
from pyzoo.errors import UsageError, one_line

__all__ = ["load_svhn"]

_FILES = {  # MD5 sums
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def load_svhn(split: Split, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Reads SVHN's cropped digits: 73,257 training images or 26,032 test images.

    Args:
        split: "train" or "test".
        folder: where to look first; then as in :mod:`pyzoo.data.places`.

    Returns:
        Images, (images, 3, 32, 32), uint8; and labels, (images,), int64.

    Raises:
        UsageError: The file is damaged or has another layout, or is in none of the folders and cannot be downloaded.
        ValueError: There is no such split.
    """
    from scipy.io import loadmat  # a dependency of scikit-learn

    name = f"{split}_32x32.mat"
    if name not in _FILES:
        raise ValueError(f"split must be 'train' or 'test', got '{split}'.")
    path = find_file(Path(name), folder)
    if not path.exists():
        instead = "use --data mnist-numbers, whose house numbers are rendered"
        with downloading("SVHN", Path(name), folder, instead) as torchvision:
            torchvision.datasets.SVHN(root=str(path.parent), split=split, download=True)
    file = io.BytesIO(read_whole(path, _FILES[name]))
    try:
        content = loadmat(file)
        images, labels = content["X"], content["y"].astype(np.int64).reshape(-1)
    except Exception as error:  # SciPy raises many kinds
        raise UsageError(f"{path} is not a file of SVHN: {one_line(error)}") from error
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise UsageError(f"{path} does not have the layout of SVHN: {images.dtype} {images.shape} for {len(labels)} labels")
    labels = torch.from_numpy(labels)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), torch.where(labels == 10, 0, labels)
