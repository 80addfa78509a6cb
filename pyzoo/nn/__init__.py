"""Network blocks that two or more models share."""

from pyzoo.nn.head import Head
from pyzoo.nn.image_check import ImageCheck, ShapeCheck
from pyzoo.nn.initialize import he_initialized
from pyzoo.nn.networks import Networks
from pyzoo.nn.recurrent_cell import RecurrentCell
from pyzoo.nn.residual import Residual
from pyzoo.nn.variance import scale_from_log_variance

__all__ = [
    "Head",
    "ImageCheck",
    "Networks",
    "RecurrentCell",
    "Residual",
    "ShapeCheck",
    "he_initialized",
    "scale_from_log_variance",
]
