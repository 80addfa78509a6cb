"""ELBOs, likelihood estimates and other ways to run Pyro programs."""

from pyzoo.infer.at_mean import AtMean
from pyzoo.infer.importance import log_likelihood
from pyzoo.infer.trace_kl import NegativeELBO, TraceKL_ELBO

__all__ = ["AtMean", "NegativeELBO", "TraceKL_ELBO", "log_likelihood"]
