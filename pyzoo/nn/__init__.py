"""Network blocks that two or more models share."""

from pyzoo.nn.head import Head
from pyzoo.nn.residual import Residual
from pyzoo.nn.variance import scale_from_log_variance

__all__ = ["Head", "Residual", "scale_from_log_variance"]
