"""Street View House Numbers: photographs of house numbers, 32x32, the digit to be read in the middle.

Source: Netzer et al. (2011), "Reading Digits in Natural Images with Unsupervised Feature Learning", format 2. Files lie as
torchvision lays them out, ``train_32x32.mat`` and ``test_32x32.mat``, and are looked for as :mod:`pyzoo.data.images` says.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyzoo.data.images import Split, downloading, find_file, read_whole
from pyzoo.errors import UsageError, one_line

__all__ = ["load_svhn"]

_FILES = {  # their MD5 sums
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def load_svhn(split: Split, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Reads SVHN's cropped digits, 73,257 to train on and 26,032 to test on.

    Args:
        split: "train" or "test".
        folder: where to look first.

    Returns:
        Images, (images, 3, 32, 32), uint8; and labels, (images,), int64.

    Raises:
        UsageError: the file is damaged or has another layout, or is in no folder and can't be downloaded.
    """
    from scipy.io import loadmat  # comes with scikit-learn

    name = f"{split}_32x32.mat"
    if name not in _FILES:
        raise ValueError(f"split is 'train' or 'test', not '{split}'.")
    path = find_file(Path(name), folder)
    if not path.exists():
        with downloading(Path(name), folder, instead="--data mnist-numbers draws house numbers of its own") as torchvision:
            torchvision.datasets.SVHN(root=str(path.parent), split=split, download=True)
    file = io.BytesIO(read_whole(path, _FILES[name]))
    try:
        content = loadmat(file)
        images, labels = content["X"], content["y"].astype(np.int64).reshape(-1)
    except Exception as error:  # scipy raises many kinds
        raise UsageError(f"{path} is not one of SVHN's: {one_line(error)}") from error
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise UsageError(f"{path} has another layout than SVHN: {images.dtype} {images.shape} for {len(labels)} labels")
    labels = torch.from_numpy(labels)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), torch.where(labels == 10, 0, labels)
