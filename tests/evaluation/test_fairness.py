import pytest
import torch

from pyzoo.evaluation import fairness_metrics, leakage


def test_rates_are_those_counted_by_hand():
    generator = torch.Generator().manual_seed(0)
    predicted, target, group = torch.randint(2, (3, 1000), generator=generator)
    rate = {a: predicted[(group == a) & (target == 1)].double().mean() for a in (0, 1)}
    share = {a: predicted[group == a].double().mean() for a in (0, 1)}
    found = fairness_metrics(predicted, target, group)
    assert found["accuracy"] == pytest.approx((predicted == target).double().mean().item())
    assert found["deo"] == pytest.approx(abs(rate[0] - rate[1]).item())
    assert found["demographic_parity"] == pytest.approx(abs(share[0] - share[1]).item())
    assert fairness_metrics(predicted.to(torch.uint8), target.to(torch.int16), group) == found


def test_what_one_group_gets_the_other_gets_too():
    target, group = torch.tensor([0, 1] * 4), torch.tensor([0, 0, 1, 1] * 2)
    assert fairness_metrics(target, target, group) == {"accuracy": 1.0, "deo": 0.0, "demographic_parity": 0.0}
    assert fairness_metrics(torch.ones_like(target), target, group)["deo"] == 0.0
    assert fairness_metrics(group, target, group)["deo"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": torch.tensor([0.5, 1.0])}, "predicted must be integers in 1 dimension"),
        ({"predicted": torch.tensor([0, 2])}, "predicted must be zeros and ones"),
        ({"group": torch.tensor([0])}, "group must be .examples,. with examples 2, got .1,."),
        ({"target": torch.tensor([0, 1])}, "Group 0 has no example with the favorable outcome"),
    ],
)
def test_bad_predictions(change, message):
    good = {"predicted": torch.tensor([0, 1]), "target": torch.tensor([1, 1]), "group": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        fairness_metrics(**{**good, **change})


def test_a_strong_judge_finds_what_is_not_linear():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 2, generator=generator)
    group = (x.prod(1) > 0).long()  # no line separates them
    assert leakage(x[:1000], group[:1000], x[1000:], group[1000:]) > 0.95


def test_of_nothing_the_share_of_the_larger_group_is_recovered():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator)
    group = (torch.rand(4000, generator=generator) < 0.8).long()
    assert leakage(x[:2000], group[:2000], x[2000:], group[2000:]) == pytest.approx(0.8, abs=0.04)


def test_bad_representations():
    x, a = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="train must be finite"):
        leakage(x / 0, a, x, a)
    with pytest.raises(ValueError, match="train_group must have two groups or more"):
        leakage(x, a * 0, x, a)
    with pytest.raises(ValueError, match=r"test must be \(examples, 2\), got \(4, 1\)"):
        leakage(x, a, x[:, :1], a)


def test_a_group_that_only_test_rows_have():
    x, a = torch.randn(8, 2), torch.arange(8) % 2
    with pytest.raises(ValueError, match="no group that train_group lacks"):
        leakage(x, a, x, a + 1)
