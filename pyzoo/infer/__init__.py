"""ELBOs, likelihood estimates and other ways to run Pyro programs."""

from pyzoo.infer.at_mean import AtMean
from pyzoo.infer.evaluating import evaluating
from pyzoo.infer.importance import log_likelihood
from pyzoo.infer.mmd import gaussian_kernel, squared_mmd, squared_mmd_to_normal
from pyzoo.infer.network import BayesianNetwork, Variables
from pyzoo.infer.projection import Information, projection, signed_projection
from pyzoo.infer.trace_kl import NegativeELBO, TraceKL_ELBO
from pyzoo.infer.traced import TracedStep

__all__ = [
    "AtMean",
    "BayesianNetwork",
    "Information",
    "NegativeELBO",
    "TraceKL_ELBO",
    "TracedStep",
    "Variables",
    "evaluating",
    "gaussian_kernel",
    "log_likelihood",
    "projection",
    "signed_projection",
    "squared_mmd",
    "squared_mmd_to_normal",
]
