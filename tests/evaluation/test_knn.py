import pytest
import torch

from pyzoo.evaluation import few_label_accuracy, knn_accuracy


def clusters(per_class=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(per_class)
    centers = 4 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return centers[labels] + torch.randn(4 * per_class, 2, generator=generator), labels


def by_hand(train, train_labels, test, test_labels, neighbors):
    nearest = torch.cdist(test, train).argsort(dim=1)[:, :neighbors]
    votes = torch.nn.functional.one_hot(train_labels[nearest]).sum(1)
    return (votes.argmax(1) == test_labels).float().mean().item()


@pytest.mark.parametrize("neighbors", [1, 3, 7])
def test_equals_counting_by_hand(neighbors):
    train, test = clusters(), clusters(seed=1)
    assert knn_accuracy(*train, *test, neighbors) == pytest.approx(by_hand(*train, *test, neighbors))
    assert knn_accuracy(*train, *train, 1) == 1.0


def test_order_of_the_examples_does_not_matter():
    (x, y), test = clusters(), clusters(seed=1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert knn_accuracy(x[order], y[order], *test) == knn_accuracy(x, y, *test)


def test_more_labels_help_and_draws_repeat():
    train, test = clusters(), clusters(seed=1)
    few, more = (few_label_accuracy(*train, *test, per_class, draws=20) for per_class in (1, 20))
    assert len(few) == 20
    assert sum(few) < sum(more)
    assert few == few_label_accuracy(*train, *test, 1, draws=20)
    assert few != few_label_accuracy(*train, *test, 1, draws=20, seed=1)
    assert few_label_accuracy(*train, *test, 30, draws=1)[0] == knn_accuracy(*train, *test)  # all of them


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: {"neighbors": 121}, "at most the 120 training examples, got 121"),
        (lambda x, y: {"neighbors": 0}, "at least 1"),
        (lambda x, y: {"train": x[y != 2], "train_labels": y[y != 2]}, r"no training example of the classes \[2\]"),
        (lambda x, y: {"train_labels": y[:5]}, "training embeddings"),
        (lambda x, y: {"test": x[:, :1]}, "2 features in training and 1 in test"),
        (lambda x, y: {"test": x[:0], "test_labels": y[:0]}, "nothing to test"),
    ],
)
def test_bad_input(change, message):
    x, y = clusters()
    arguments = {"train": x, "train_labels": y, "test": x, "test_labels": y, **change(x, y)}
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**arguments)


def test_a_class_with_too_few_examples_is_named():
    x, y = clusters()
    keep = (y != 3) | (torch.arange(len(y)) % 30 < 2)
    with pytest.raises(ValueError, match=r"fewer than 5 .* \{3: 2\}"):
        few_label_accuracy(x[keep], y[keep], x, y, per_class=5)
    with pytest.raises(ValueError, match="nothing to classify by"):
        few_label_accuracy(x[:0], y[:0], x, y, per_class=5)


def test_one_point_that_is_far_away_changes_nothing_for_the_others():
    points, labels = torch.randn(30, 2), torch.arange(30) % 2
    far = torch.cat([points, torch.tensor([[1e12, 1e12]])]), torch.cat([labels, labels[:1]])
    assert knn_accuracy(*far, points, labels, neighbors=1) == 1.0


def test_distances_that_overflow():
    points, labels = torch.randn(30, 2).double() * 1e200, torch.arange(30) % 2
    with pytest.raises(ValueError, match="too far apart"):
        knn_accuracy(points, labels, points, labels, neighbors=1)
