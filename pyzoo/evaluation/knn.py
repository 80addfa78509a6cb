"""How useful an embedding is: classifying by neighbors in it."""

import torch
from torch import Tensor

from pyzoo.checks import as_indices, require_count, require_tensor
from pyzoo.random import seeded

__all__ = ["few_label_accuracy", "knn_accuracy"]


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, neighbors: int = 5) -> float:
    """Share of test examples whose label is that of most of their nearest training examples, by Euclidean distance.

    By scikit-learn, which compares all pairs: 10,000 with 60,000 in seconds.

    Args:
        train: embeddings, (train, features).
        train_labels: (train,), integer.
        test: embeddings, (test, features).
        test_labels: (test,), integer.
        neighbors: k.

    Raises:
        ValueError: k is more than the training examples, or below 1; there is nothing to test; a tensor does not fit the others;
            or a class that is tested has no training example.

    Example:
        >>> labels = torch.tensor([3, 7])
        >>> knn_accuracy(torch.tensor([[0.0], [1.0]]), labels, torch.tensor([[0.2], [0.3]]), labels, neighbors=1)
        0.5
    """
    from sklearn.neighbors import KNeighborsClassifier  # takes a second to import

    _check(train, train_labels, test, test_labels)
    require_count(neighbors, "neighbors")
    if neighbors > len(train):
        raise ValueError(f"neighbors must be at least 1 and at most the {len(train)} training examples, got {neighbors}.")
    missing = sorted(set(test_labels.tolist()) - set(train_labels.tolist()))
    if missing:
        raise ValueError(f"There is no training example of the classes {missing}, which are tested.")
    # Distances come from squared norms, which swallow them where points are far from the origin: of the median, a single one is.
    center = train.detach().double().median(0).values
    wide = torch.promote_types(torch.promote_types(train.dtype, test.dtype), torch.float32)
    parts = [part.detach().double() - center for part in (train, test)]
    if not all((4 * part.square().sum(1)).isfinite().all() for part in parts):
        raise ValueError("Embeddings are too far apart: the squares of their distances overflow.")
    points, queries = (part.to(wide).cpu().numpy() for part in parts)
    classifier = KNeighborsClassifier(neighbors, algorithm="brute").fit(points, train_labels.cpu().numpy())
    return float(classifier.score(queries, test_labels.cpu().numpy()))


def few_label_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    per_class: int,
    draws: int = 20,
    neighbors: int = 5,
    seed: int = 0,
) -> list[float]:
    """:func:`knn_accuracy` with few labels: of each of several draws of as many training examples of each class.

    Args:
        train: embeddings, (train, features).
        train_labels: (train,), integer.
        test: embeddings, (test, features).
        test_labels: (test,), integer.
        per_class: examples of each class in a draw, without replacement.
        draws: how many.
        neighbors: k; where there are fewer labels of a class, that many.
        seed: of the draws.

    Raises:
        ValueError: as :func:`knn_accuracy`; there is nothing to classify by; or a class has fewer than ``per_class`` training
            examples.

    Example:
        >>> x, y = torch.tensor([[0.0], [0.1], [1.0], [1.1]]), torch.tensor([0, 0, 1, 1])
        >>> few_label_accuracy(x, y, x, y, per_class=1, draws=3)
        [1.0, 1.0, 1.0]
    """
    _check(train, train_labels, test, test_labels)
    require_count(per_class, "per_class")
    require_count(draws, "draws")
    require_count(neighbors, "neighbors")
    if not len(train):
        raise ValueError("There is nothing to classify by.")
    generator = seeded(seed)
    train_labels = train_labels.cpu()
    members = {label: (train_labels == label).nonzero().flatten() for label in train_labels.unique().tolist()}
    small = {label: len(rows) for label, rows in members.items() if len(rows) < per_class}
    if small:
        raise ValueError(f"There are fewer than {per_class} training examples of some classes: {small}.")
    found = []
    for _ in range(draws):
        chosen = torch.cat([rows[torch.randperm(len(rows), generator=generator)[:per_class]] for rows in members.values()])
        found.append(knn_accuracy(train[chosen], train_labels[chosen], test, test_labels, min(neighbors, per_class)))
    return found


def _check(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    for what, points, labels in (("training", train, train_labels), ("test", test, test_labels)):
        require_tensor(points, f"the {what} embeddings")
        require_tensor(labels, f"the {what} labels")
        if points.dim() != 2 or labels.shape != points.shape[:1]:
            raise ValueError(f"The {what} embeddings are {tuple(points.shape)} and their labels {tuple(labels.shape)}.")
        if not points.is_floating_point() or not points.shape[1] or not torch.isfinite(points).all():
            raise ValueError(f"The {what} embeddings must be finite floating-point numbers of one feature or more.")
        as_indices(labels, f"the {what} labels")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"Embeddings have {train.shape[1]} features in training and {test.shape[1]} in test.")
    if not len(test):
        raise ValueError("There is nothing to test.")
