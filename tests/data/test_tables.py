import math
import os

import pytest
import torch

from pyzoo.data.tables import load_table, synthetic_table
from pyzoo.errors import UsageError

REAL = pytest.mark.skipif(not os.environ.get("PYZOO_DATA"), reason="no $PYZOO_DATA")
PEOPLE = """age,job,sex,hired
20,cook,f,no
30,cook,f,yes
40,,m,no
50,pilot,m,yes
,pilot,f,no
35,clerk,f,yes
45,clerk,m,no
55,cook,m,yes
"""


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYZOO_DATA", raising=False)
    return tmp_path


def csv(folder, text=PEOPLE):
    (folder / "people.csv").write_text(text)
    return folder / "people.csv"


@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0])
def test_the_synthetic_bias_is_the_one_that_is_said(bias):
    table = synthetic_table(rows=100_000, bias=bias)
    rates = [table.target[table.sensitive == a].double().mean().item() for a in (0, 1)]
    expected = [0.5 * (1 + math.erf(side * bias / 4 / math.sqrt(2))) for side in (-1, 1)]
    assert rates == pytest.approx(expected, abs=0.01)


def test_a_table_of_ones_own(nowhere):
    table = load_table(csv(nowhere), "hired", "sex")
    assert (table.groups, table.outcomes, len(table)) == (("f", "m"), ("no", "yes"), 8)
    assert list(table.frame.columns) == ["age", "job"]
    assert table.note == "Of 'hired', 'yes' is favorable. Values are missing of age (1), job (1)."
    train, test = table.split(seed=0, test_share=0.5)
    assert len(train) == len(test) == 4
    assert train.x.shape[1] == test.x.shape[1]
    assert train.x.isfinite().all()
    assert test.x.isfinite().all()
    assert sorted((2 * train.a + train.y).tolist()) == [0, 1, 2, 3]  # each group and outcome


def test_numbers_are_standardized_by_the_training_rows_alone():
    train, test = synthetic_table(rows=1000).split(seed=0)
    torch.testing.assert_close(train.x[:, :5].mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.x[:, :5].std(0, correction=0), torch.ones(5))
    assert not torch.allclose(test.x[:, :5].mean(0), torch.zeros(5), atol=1e-4)


def test_a_split_follows_from_its_seed():
    table = synthetic_table(rows=200)
    first, again, other = (table.split(seed)[0].x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_category_that_training_has_not_seen_becomes_zeros(nowhere):
    rows = "\n".join(f"{i},{'rare' if i == 39 else 'common'},{'fm'[i % 2]},{('no', 'yes')[i // 2 % 2]}" for i in range(40))
    table = load_table(csv(nowhere, f"age,job,sex,hired\n{rows}\n"), "hired", "sex")
    splits = [table.split(seed) for seed in range(10)]
    unseen = [test for train, test in splits if train.x.shape[1] == 2]  # age, and one job
    assert 0 < len(unseen) < 10
    assert all((test.x[:, 1] == 0).sum() == 1 for test in unseen)


@pytest.mark.parametrize(
    ("text", "target", "sensitive", "message"),
    [
        (PEOPLE, "", "sex", "--target must name a column of"),
        (PEOPLE, "hired", "", "--sensitive must name a column of"),
        (PEOPLE, "wage", "sex", "has no column 'wage': it has age, job, sex, hired"),
        (PEOPLE, "hired", "job", "must have two values, got 3: clerk, cook, pilot"),
        (PEOPLE, "age", "sex", "must have two values, got 7"),
        (PEOPLE, "hired", "hired", "--target and --sensitive are both 'hired'"),
        (PEOPLE.replace("yes", "no"), "hired", "sex", "must have two values, got 1: no"),
        ("age,job,sex,hired\n", "hired", "sex", "has no rows"),
        ("sex,hired\nf,no\nm,yes\n", "hired", "sex", "has no columns besides target and sensitive attribute"),
        ("", "hired", "sex", "can't be read as a table"),
        ('a,b\n"1,2\n', "a", "b", "can't be read as a table"),
    ],
)
def test_bad_tables_are_said(nowhere, text, target, sensitive, message):
    with pytest.raises(UsageError, match=message):
        load_table(csv(nowhere, text), target, sensitive)


def test_a_table_that_is_not_there(nowhere):
    with pytest.raises(UsageError, match=r"there is no table 'nothing\.csv': --data takes adult, german, synthetic or a"):
        load_table("nothing.csv", "a", "b")


def test_too_few_rows_to_split(nowhere):
    with pytest.raises(UsageError, match="can't be split"):
        load_table(csv(nowhere, "age,sex,hired\n1,f,no\n2,m,yes\n"), "hired", "sex").split(seed=0)


@pytest.mark.parametrize(("name", "where"), [("adult", "adult"), ("german", "german")])
def test_without_files_and_network_it_says_what_to_do(nowhere, monkeypatch, name, where):
    def fails(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fails)
    with pytest.raises(UsageError, match=rf"^{where} was not found .* \(no network\).*--data synthetic"):
        load_table(name)


@REAL
@pytest.mark.parametrize(("name", "rows", "favorable", "men"), [("adult", 48_842, 0.2393, 0.6685), ("german", 1000, 0.7, 0.69)])
def test_real_tables(name, rows, favorable, men):
    table = load_table(name)
    assert len(table) == rows
    assert table.target.double().mean().item() == pytest.approx(favorable, abs=1e-3)
    assert table.sensitive.double().mean().item() == pytest.approx(men, abs=1e-3)
    assert table.groups[1].lower() == "male"


# Strange files --------------------------------------------------------------------------------------------------------


def column(*cells):
    """A table whose feature "f" takes these values in turn, 40 rows."""
    return "f,s,y\n" + "".join(f"{cells[i % len(cells)]},{i % 2},{i // 2 % 2}\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (column(1, 2).replace("f,s,y", "y,s,y"), "two columns 'y'"),  # else the target is among the features
        (column(1, 2).replace("\n", ",9\n").replace("f,s,y,9", "f,s,y"), "longer than its line of names"),
        (column(1, "inf"), "column 'f' has a number that is infinite"),
        (column(1, "9" * 400), "column 'f' has a number that is infinite"),
        (column("1e308", "-1e308", 0), "column 'f' are too large"),
    ],
)
def test_tables_that_would_give_wrong_numbers_are_refused(nowhere, text, message):
    with pytest.raises(UsageError, match=message):
        load_table(csv(nowhere, text), "y", "s").split(seed=0)


@pytest.mark.parametrize(
    "text",
    ["\n\n" + column(1, 2, 3), "\ufeff" + column(1, 2, 3), column(1, 2, 3).replace("\n", "\r"), column(10**30, 2, 3)],
    ids=["blank lines", "byte order mark", "old line ends", "beyond 64 bits"],
)
def test_numbers_are_numbers_however_they_are_written(nowhere, text):
    table = load_table(csv(nowhere, text), "y", "s")
    assert len(table) == 40
    assert table.split(seed=0)[0].x.shape == (32, 1)


def test_truth_values_and_missing_ones_are_categories(nowhere):
    for text, categories in ((column("True", "False"), 2), (column("missing", "", "other"), 3)):
        assert load_table(csv(nowhere, text), "y", "s").split(seed=0)[0].x.shape == (32, categories)


@pytest.mark.parametrize(("low", "high"), [(-2, -1), (9, 10), (0.5, 10)])
def test_the_larger_number_is_the_favorable_outcome(nowhere, low, high):
    text = "f,s,y\n" + "".join(f"{i},{i % 2},{(low, high)[i // 2 % 2]}\n" for i in range(40))
    table = load_table(csv(nowhere, text), "y", "s")
    assert [float(name) for name in table.outcomes] == [low, high]
    assert table.target.tolist() == [i // 2 % 2 for i in range(40)]
