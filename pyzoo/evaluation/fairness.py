"""How fair predictions are to two groups, and what a representation tells of the group. Metrics are fairlearn's."""

import warnings

import torch
from torch import Tensor

from pyzoo.checks import as_indices, require_count, require_floating, require_shape

__all__ = ["fairness_metrics", "leakage"]


def fairness_metrics(predicted: Tensor, target: Tensor, group: Tensor) -> dict[str, float]:
    r"""Accuracy, and how much two groups' rates of favorable predictions differ: among all, and among those who deserve it.

    .. math:: \mathrm{DEO} = |P(\hat y = 1 \mid a = 0, y = 1) - P(\hat y = 1 \mid a = 1, y = 1)|, \qquad
        \mathrm{DP} = |P(\hat y = 1 \mid a = 0) - P(\hat y = 1 \mid a = 1)|

    Source: Hardt, Price and Srebro (2016), "Equality of Opportunity in Supervised Learning".

    Args:
        predicted: predictions, (examples,), integers 0 and 1; 1 is the favorable outcome.
        target: what is right, likewise.
        group: the sensitive attribute, likewise.

    Returns:
        ``accuracy``, ``deo`` and ``demographic_parity``.

    Raises:
        ValueError: they are not zeros and ones in equal numbers, or a group has no example with the favorable outcome.

    Example:
        >>> predicted, target, group = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1]])
        >>> fairness_metrics(predicted, target, group)
        {'accuracy': 0.5, 'deo': 0.5, 'demographic_parity': 0.5}
    """
    from fairlearn.metrics import demographic_parity_difference, equal_opportunity_difference
    from sklearn.metrics import accuracy_score

    arrays = {}
    require_shape(target, "target", ("examples",))
    for name, values in (("predicted", predicted), ("target", target), ("group", group)):
        require_shape(values, name, ("examples",), examples=len(target))
        arrays[name] = as_indices(values, name).cpu().numpy()
        if not ((values == 0) | (values == 1)).all():
            raise ValueError(f"{name} must be zeros and ones.")
    for value in (0, 1):
        if not ((group == value) & (target == 1)).any():
            raise ValueError(
                f"Group {value} has no example with the favorable outcome: there is no equal opportunity to compare."
            )
    y, guess, a = arrays["target"], arrays["predicted"], arrays["group"]
    return {
        "accuracy": float(accuracy_score(y, guess)),
        "deo": float(equal_opportunity_difference(y, guess, sensitive_features=a)),
        "demographic_parity": float(demographic_parity_difference(y, guess, sensitive_features=a)),
    }


def leakage(train: Tensor, train_group: Tensor, test: Tensor, test_group: Tensor, seed: int = 0) -> float:
    """The accuracy with which a strong classifier recovers the group from a representation.

    Of one that tells nothing it is the share of the larger group. The classifier is scikit-learn's gradient-boosted trees, which
    need no tuning and find dependence that is not linear.

    Args:
        train: representations, (train, features).
        train_group: their groups, (train,), integer.
        test: representations, (test, features).
        test_group: their groups, (test,), integer.
        seed: of the classifier.

    Raises:
        ValueError: a tensor does not fit the others, is not finite, or the training rows are all of one group.

    Example:
        >>> x, a = torch.tensor([[0.0], [1.0]]).repeat(50, 1), torch.tensor([0, 1]).repeat(50)
        >>> leakage(x, a, x, a)
        1.0
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    require_count(seed, "seed", 0)
    if seed >= 2**32:
        raise ValueError(f"seed must be below 2^32, got {seed}.")
    train_group, test_group = (
        as_indices(groups, name) for groups, name in ((train_group, "train_group"), (test_group, "test_group"))
    )
    for name, values, groups in (("train", train, train_group), ("test", test, test_group)):
        require_shape(values, name, ("examples", "features"))
        require_floating(values, name)
        require_shape(groups, f"{name}_group", ("examples",), examples=len(values))
        if not values.isfinite().all():
            raise ValueError(f"{name} must be finite.")
    require_shape(test, "test", ("examples", train.shape[1]))
    if len(torch.unique(train_group)) < 2:
        raise ValueError("train_group must have two groups or more.")
    if not torch.isin(test_group, train_group).all():
        raise ValueError("test_group must have no group that train_group lacks.")
    train, test = (values.detach().to(torch.promote_types(values.dtype, torch.float32)) for values in (train, test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads
        judge = HistGradientBoostingClassifier(random_state=seed).fit(train.cpu().numpy(), train_group.cpu().numpy())
        return float(judge.score(test.cpu().numpy(), test_group.cpu().numpy()))
