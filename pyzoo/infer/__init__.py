"""ELBOs, likelihood estimates and other ways to run Pyro programs."""

from pyzoo.infer.at_mean import AtMean
from pyzoo.infer.beliefs import Beliefs
from pyzoo.infer.compiled_step import CompiledStep, compile_step
from pyzoo.infer.estimators import Distortion, Estimator, IndexInformation, LearnedInformation, TotalCorrelation
from pyzoo.infer.evaluating import evaluating
from pyzoo.infer.geco import GECO
from pyzoo.infer.importance import log_likelihood
from pyzoo.infer.information import (
    MINE,
    aggregate_log_prob,
    dependence,
    distortion,
    index_information,
    rate,
    total_correlation,
)
from pyzoo.infer.invariance import EnvironmentGain, GradientPenalty, Prediction, environment_gain, gradient_penalty
from pyzoo.infer.masks import FixedMask, RelaxedMask
from pyzoo.infer.mmd import gaussian_kernel, squared_mmd, squared_mmd_to_normal
from pyzoo.infer.network import BayesianNetwork, Variables
from pyzoo.infer.penalty import Penalized, Penalty
from pyzoo.infer.projection import Information, projection, signed_projection
from pyzoo.infer.trace_kl import NegativeELBO, TraceKL_ELBO, analytic
from pyzoo.infer.traced import TracedStep

__all__ = [
    "GECO",
    "MINE",
    "AtMean",
    "BayesianNetwork",
    "Beliefs",
    "CompiledStep",
    "Distortion",
    "EnvironmentGain",
    "Estimator",
    "FixedMask",
    "GradientPenalty",
    "IndexInformation",
    "Information",
    "LearnedInformation",
    "NegativeELBO",
    "Penalized",
    "Penalty",
    "Prediction",
    "RelaxedMask",
    "TotalCorrelation",
    "TraceKL_ELBO",
    "TracedStep",
    "Variables",
    "aggregate_log_prob",
    "analytic",
    "compile_step",
    "dependence",
    "distortion",
    "environment_gain",
    "evaluating",
    "gaussian_kernel",
    "gradient_penalty",
    "index_information",
    "log_likelihood",
    "projection",
    "rate",
    "signed_projection",
    "squared_mmd",
    "squared_mmd_to_normal",
    "total_correlation",
]
