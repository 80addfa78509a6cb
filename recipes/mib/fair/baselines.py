"""What a practitioner would train on the same rows: scikit-learn's classifiers, and fairlearn's reductions."""

import warnings
from typing import Any

import torch
from torch import Tensor

from pyzoo.data.tables import Split
from pyzoo.evaluation import fairness_metrics, leakage

__all__ = ["baselines"]


def baselines(train: Split, test: Split, seed: int = 0) -> dict[str, dict[str, float]]:
    """Metrics on the test rows of classifiers that were trained on the training rows, by name.

    - Constant: the more frequent outcome.
    - Logistic regression, on all columns; its ``leakage`` is what all columns tell of the sensitive attribute.
    - SVM, with an approximated Gaussian kernel (Nystroem's, 300 points).
    - MLP, two layers of 64 units, with early stopping.
    - Reductions: a logistic regression that fairlearn's exponentiated gradient constrains to equal opportunity (Agarwal et al.
      2018, "A Reductions Approach to Fair Classification"), each group's rate at most 0.01 from that of both on the training
      rows, so that the two may differ by twice as much.

    Args:
        train: rows to train on.
        test: rows to measure on.
        seed: of what is random in them.
    """
    from fairlearn.reductions import ExponentiatedGradient, TruePositiveRateParity
    from sklearn.dummy import DummyClassifier
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    x, y, a = (values.numpy() for values in (train.x, train.y, train.a))
    seed %= 2**32  # scikit-learn's have 32 bits

    def measured(classifier: Any, **options: Any) -> dict[str, float]:
        return fairness_metrics(torch.as_tensor(classifier.predict(test.x.numpy(), **options)), test.y, test.a)

    kernel = Nystroem(gamma=1 / _squared_distance(train.x), n_components=min(300, len(train)), random_state=seed)
    reductions = ExponentiatedGradient(LogisticRegression(max_iter=1000), TruePositiveRateParity(difference_bound=0.01), eps=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fairlearn's own use of pandas
        reductions.fit(x, y, sensitive_features=a)
        return {
            "Constant": measured(DummyClassifier().fit(x, y)),
            "Logistic regression": {
                **measured(LogisticRegression(max_iter=1000).fit(x, y)),
                "leakage": leakage(train.x, train.a, test.x, test.a),
            },
            "SVM": measured(make_pipeline(kernel, LinearSVC(dual=False)).fit(x, y)),
            "MLP": measured(MLPClassifier((64, 64), early_stopping=True, random_state=seed).fit(x, y)),
            "Reductions (fairlearn)": measured(reductions, random_state=seed),
        }


def _squared_distance(x: Tensor) -> float:
    """The mean squared distance of two rows."""
    return 2 * x.var(0, correction=0).sum().item()
