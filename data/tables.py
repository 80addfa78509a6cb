"""Tables with a label to predict and an attribute that predictions should not depend on: Adult, German credit, a user's own.

Adult and German credit are read from UCI's own files, ``adult/adult.data``, ``adult/adult.test`` and ``german/german.data``, that
are looked for as :mod:`pyzoo.data.places` describes; where there are none, scikit-learn downloads the tables from OpenML. A
user's table is a CSV file whose first line names the columns. "synthetic" needs no file, and its bias is known.

pandas reads tables, and scikit-learn makes numbers of them; both are imported when a table is asked for.
"""

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.checks import as_device, as_indices, require_count, require_kind, require_number, require_shape
from pyzoo.data.images import Epochs
from pyzoo.data.places import cache, check_folder, find_file, folders
from pyzoo.errors import UsageError, one_line
from pyzoo.files import expanded, fingerprint_of, read_bytes, require_name
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import Above, AtLeast, AtMost, Below

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLES", "Split", "Table", "TableSource", "load_table", "synthetic_table"]

TABLES = ("adult", "german", "synthetic")
"""The tables that are known by name."""

_ADULT = """age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain capital-loss
    hours-per-week native-country income""".split()  # noqa: SIM905
_GERMAN = """status duration credit-history purpose amount savings employment installment-rate personal-status guarantors
    residence property age installment-plans housing credits job dependents telephone foreign-worker credit""".split()  # noqa: SIM905


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A part of a table as numbers. Columns have mean 0 and variance 1 over the training rows, or are zeros and ones.

    Args:
        x: features, (rows, features), floats; without the target and the sensitive attribute.
        a: the sensitive attribute, (rows,), int64, 0 or 1.
        y: the target, (rows,), int64, 0 or 1.
        note: what to report beside every number of these rows.
    """

    x: Tensor
    a: Tensor
    y: Tensor
    note: str = ""

    def __post_init__(self) -> None:
        require_shape(self.x, "x", ("rows", "features"))
        for name, values in (("a", self.a), ("y", self.y)):
            as_indices(values, name, below=2)
            require_shape(values, name, ("rows",), rows=len(self.x))

    def __len__(self) -> int:
        return len(self.y)

    def hold_out(self, share: float, seed: int = 0) -> tuple["Split", "Split"]:
        """Two parts, the second with a share of the rows, drawn at random.

        Raises:
            ValueError: the share is not between 0 and 1.
            UsageError: a part would lack an outcome, or a group's favorable outcome; or would have no rows.
        """
        require_number(share, "share", Above(0), Below(1))
        order = torch.randperm(len(self), generator=seeded(derive_seed(seed, "held out rows")))
        held = round(share * len(self))
        if held in (0, len(self)):
            raise UsageError(f"--held-out {share:g} of {len(self):,} rows leaves none in one of the parts")
        parts = [dataclasses.replace(self, x=self.x[i], a=self.a[i], y=self.y[i]) for i in (order[held:], order[:held])]
        for part in parts:
            if lacks := part.lacks():
                raise UsageError(f"--held-out {share:g} leaves {lacks} in one of the parts")
        return parts[0], parts[1]

    def lacks(self) -> str:
        """What no row has, and classifiers or their comparison need: one of the outcomes, or a group's favorable one."""
        if not all(((self.a == group) & (self.y == 1)).any() for group in (0, 1)):
            return "no favorable outcome of one of the groups"
        return "" if (self.y == 0).any() else "no unfavorable outcome"


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table before it is split.

    Args:
        name: what errors and results call it.
        frame: the columns that are features.
        sensitive: the sensitive attribute of each row, (rows,), int64, 0 or 1.
        target: what is to be predicted, (rows,), int64, 0 or 1; 1 is the favorable outcome.
        groups: names of the sensitive attribute's two values.
        outcomes: names of the target's two values.
        note: what to report beside every number.

    Example:
        >>> table = synthetic_table(rows=100, bias=1.0)
        >>> train, test = table.split(seed=0, test_share=0.2)
        >>> len(train), len(test), train.x.shape[1] == test.x.shape[1]
        (80, 20, True)
    """

    name: str
    frame: "pd.DataFrame"
    sensitive: Tensor
    target: Tensor
    groups: tuple[str, str]
    outcomes: tuple[str, str]
    note: str = ""

    def __len__(self) -> int:
        return len(self.frame)

    def fingerprint(self) -> str:
        """What tells the table from others: of its columns' names and its rows."""
        import numpy as np
        import pandas as pd

        names = "\n".join(map(str, self.frame.columns)).encode()
        rows = pd.util.hash_pandas_object(self.frame, index=False).to_numpy()
        return fingerprint_of(np.frombuffer(names, np.uint8), rows, self.sensitive, self.target)

    def split(self, seed: int, test_share: float = 0.2) -> tuple[Split, Split]:
        """Rows to train on and rows to test on, drawn at random so that each part has the same shares of groups and outcomes.

        What turns columns into numbers has seen the training rows alone: means, variances and categories. A missing number
        becomes the median, and a column of its own says so; a missing category is a category of its own. A category that only
        test rows have becomes zeros, and where values are missing from test rows alone there is no column for it; the test rows'
        note says so.

        Args:
            seed: of the draw.
            test_share: share of the rows to test on.

        Raises:
            ValueError: the share is not between 0 and 1.
            UsageError: a part would lack an outcome, or a group's favorable outcome; or a number is too large.
        """
        import numpy as np
        from sklearn.model_selection import train_test_split

        require_number(test_share, "test_share", Above(0), Below(1))
        both = (2 * self.sensitive + self.target).numpy()
        rows = range(len(self))
        try:
            train, test = train_test_split(
                rows, test_size=test_share, stratify=both, random_state=derive_seed(seed, "split") % 2**32
            )
        except ValueError as error:
            few = f"{self.name} can't be split with {test_share:.3g} of its {len(self):,} rows for testing"
            raise UsageError(f"{few}: a part would lack a group with one of the outcomes") from error
        transform = _transformer()
        parts, note = [], _unseen(self.frame.iloc[train], self.frame.iloc[test])
        for part, fit in ((sorted(train), True), (sorted(test), False)):
            frame = self.frame.iloc[part]
            with np.errstate(over="ignore", invalid="ignore"):  # see below
                x = transform.fit_transform(frame) if fit else transform.transform(frame)
            numbers = torch.as_tensor(x, dtype=torch.get_default_dtype())
            if not (finite := numbers.isfinite().all(0)).all():
                column = transform.get_feature_names_out()[int(finite.int().argmin())].partition("__")[2]
                raise UsageError(f"{self.name}: numbers of column '{column}' are too large to be brought to variance 1")
            parts.append(Split(numbers, self.sensitive[part], self.target[part], "" if fit else note))
            if lacks := parts[-1].lacks():
                purpose = "to train on" if fit else "for testing"
                raise UsageError(f"{self.name} has {lacks} among the {len(part):,} rows {purpose}")
        return parts[0], parts[1]


def _unseen(train: "pd.DataFrame", test: "pd.DataFrame") -> str:
    """What to say of categories that only test rows have."""
    texts = train.select_dtypes(exclude="number").columns
    new = {name: int((~test[name].isin(train[name].unique()) & test[name].notna()).sum()) for name in texts}
    missing = {name: int(test[name].isna().sum()) for name in train if not train[name].isna().any()}
    notes = []
    for what, counts in (
        ("with a category that no training row has", new),
        ("whose value is missing as in no training row", missing),
    ):
        names = ", ".join(f"{name} ({count:,})" for name, count in counts.items() if count)
        notes += [f"Test rows {what}: {names}."] if names else []
    return " ".join(notes)


def _transformer() -> Any:
    """What makes numbers of a table's columns."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    # Centered first, since a scaler takes large numbers that differ little, such as times, for a constant.
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    numbers = make_pipeline(imputer, StandardScaler(with_std=False), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=""), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    )
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")), (categories, make_column_selector(dtype_exclude="number"))
    )


class TableSource:
    """A source of batches of a table's rows: features and the sensitive attribute, never the target.

    Args:
        split: the rows.
        known: share of the rows whose sensitive attribute is known; of the others it is missing, the same in every epoch.
        seed: of the rows' order, and of which attributes are missing.
        device: where the rows are held.

    Raises:
        ValueError: ``known`` is not between 0 and 1.

    Example:
        >>> train, _ = synthetic_table(rows=100).split(seed=0)
        >>> {name: tuple(value.shape) for name, value in TableSource(train, known=0.5).batch(step=0, size=3).items()}
        {'x': (3, 8), 'a': (3, 2), 'present': (3, 2)}
    """

    def __init__(self, split: Split, known: float = 1.0, seed: int = 0, device: torch.device | str = "cpu") -> None:
        require_number(known, "known", AtLeast(0), AtMost(1))
        require_kind(split, "split", Split)
        device = as_device(device)
        self.x: Tensor = split.x.to(device)
        self.a: Tensor = one_hot(split.a, 2).to(self.x)
        self.epochs: Epochs = Epochs(len(split), seed, device)
        self.present: Tensor | None = None
        if known < 1:
            is_known = torch.rand(len(split), generator=seeded(derive_seed(seed, "known"))) < known
            self.present = torch.stack([torch.ones_like(is_known), is_known], dim=1).to(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: "x", (size, features); "a", (size, 2), one-hot; ``present``, (size, 2), if attributes are missing.

        Raises:
            UsageError: there are fewer rows than a batch needs.
        """
        rows = self.epochs.rows(step, size)
        batch = {"x": self.x[rows], "a": self.a[rows]}
        return batch if self.present is None else {**batch, "present": self.present[rows]}


# Reading --------------------------------------------------------------------------------------------------------------


def load_table(
    data: str | Path, target: str = "", sensitive: str = "", folder: str | Path | None = None, bias: float = 1.0
) -> Table:
    """Reads a table.

    Args:
        data: "adult", "german", "synthetic", or a CSV file.
        target: the column to predict; of Adult and German credit their own by default.
        sensitive: the sensitive attribute's column; by default "sex" for Adult and German credit.
        folder: where to look first for files; then as in :mod:`pyzoo.data.places`.
        bias: of the synthetic table, see :func:`synthetic_table`.

    Raises:
        UsageError: a file or column is missing, the table is empty or has no features, two columns have one name, rows are longer
            than the line of names, a number is infinite, or target or sensitive attribute do not have two values each.
    """
    check_folder(folder)
    require_name(data)
    if data == "synthetic":
        for name, value in (("--target", target), ("--sensitive", sensitive)):
            if value:
                raise UsageError(f"{name} is of other tables: the synthetic one has its own, got {value}")
        return synthetic_table(bias=bias)
    if data == "adult":
        return _table("Adult", _adult(folder), target or "income", sensitive or "sex", favorable=">50K")
    if data == "german":
        return _table("German credit", _german(folder), target or "credit", sensitive or "sex", favorable="good")
    path = expanded(data)
    if not path.is_file():
        raise UsageError(f"there is no table '{data}': --data takes {', '.join(TABLES)} or a CSV file")
    for name, value in (("--target", target), ("--sensitive", sensitive)):
        if not value:
            raise UsageError(f"{name} must name a column of {path}")
    return _table(str(path), _read(path), target, sensitive)


def _table(name: str, frame: "pd.DataFrame", target: str, sensitive: str, favorable: str | None = None) -> Table:
    """A table whose target and sensitive attribute are taken out of its columns."""
    if not len(frame):
        raise UsageError(f"{name} has no rows")
    for column in (target, sensitive):
        if column not in frame.columns:
            raise UsageError(f"{name} has no column '{column}': it has {', '.join(map(str, frame.columns))}")
    if target == sensitive:
        raise UsageError(f"--target and --sensitive are both '{target}'")
    missing = frame[[target, sensitive]].isna().any(axis=1)
    notes = [f"{int(missing.sum())} rows without target or sensitive attribute are left out."] if missing.any() else []
    frame = frame[~missing].reset_index(drop=True)
    y, outcomes = _two_values(name, frame[target], "target", favorable)
    notes += [] if favorable in outcomes else [f"Of '{target}', {outcomes[1]!r} is favorable."]
    a, groups = _two_values(name, frame[sensitive], "sensitive attribute")
    features = _as_numbers(name, frame.drop(columns=[target, sensitive]))
    if not features.shape[1]:
        raise UsageError(f"{name} has no columns besides target and sensitive attribute")
    gaps = {column: count for column, count in features.isna().sum().items() if count}
    notes += [f"Values are missing of {', '.join(f'{column} ({count:,})' for column, count in gaps.items())}."] if gaps else []
    notes += _nearly_numbers(features)
    return Table(name, features, a, y, groups, outcomes, " ".join(notes))


def _as_numbers(name: str, frame: "pd.DataFrame") -> "pd.DataFrame":
    """A table whose columns are numbers where all that they hold are numbers: pandas takes those beyond 64 bits for texts.

    Raises:
        UsageError: a number is infinite.
    """
    import numpy as np
    import pandas as pd

    texts = {}
    for column in frame.select_dtypes(exclude=["number", "category"]):
        values = frame[column].map(str, na_action="ignore").astype(object)  # scikit-learn takes no booleans
        numbers = pd.to_numeric(values, errors="coerce")
        texts[column] = values if (numbers.isna() & values.notna()).any() else numbers
    frame = frame.assign(**texts)
    numbers = frame.select_dtypes("number")
    infinite = numbers.columns[np.isinf(numbers.to_numpy(float)).any(0)]
    if len(infinite):
        raise UsageError(f"{name}: column '{infinite[0]}' has a number that is infinite or too large: leave it empty")
    return frame


def _nearly_numbers(frame: "pd.DataFrame") -> list[str]:
    """What to say of columns that are categories because of a few values that are no numbers."""
    import pandas as pd

    notes = []
    for column in frame.select_dtypes(exclude=["number", "category"]):
        given = frame[column].dropna()
        others = given[pd.to_numeric(given, errors="coerce").isna()]
        if len(others) < 0.1 * len(given):
            which = f"{len(others):,} of its {len(given):,} values are no numbers, such as {one_line(str(others.iloc[0]))!r}"
            notes.append(f"Column '{column}' is taken as categories: {which}.")
    return notes


def _two_values(name: str, column: "pd.Series", what: str, last: str | None = None) -> tuple[Tensor, tuple[str, str]]:
    """A column of two values as zeros and ones, and the values' names; in increasing order, or so that ``last`` is 1."""
    from pandas.api.types import is_numeric_dtype

    numeric = is_numeric_dtype(column)
    values = sorted(
        column.unique(), key=lambda value: (str(value) == last, *((value,) if numeric else (str(value).casefold(), str(value))))
    )
    if len(values) != 2:
        some = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise UsageError(f"the {what} of {name}, '{column.name}', must have two values, got {len(values)}: {some}")
    return torch.tensor((column == values[1]).to_numpy(), dtype=torch.int64), (str(values[0]), str(values[1]))


def _read(path: Path, names: Sequence[str] | None = None, **options: Any) -> "pd.DataFrame":
    """A CSV file, or one of UCI's without a line of names."""
    import io

    import pandas as pd

    options = {"header": None, "skipinitialspace": True, **options}
    try:
        content = read_bytes(path)
        if names is None:  # not by pandas, which gives the second of two columns of one name another
            head = pd.read_csv(io.BytesIO(content), nrows=1, dtype=str, **options).iloc[0]
            names = [str(name) if isinstance(name, str) else f"column {i + 1}" for i, name in enumerate(head)]
            options["header"] = 0
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"{path} has two columns '{twice[0]}': rename one of them")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows longer than the head, whose end would be dropped
            # By default the first column of such rows would be no column, and each value stand under its neighbor's name.
            return pd.read_csv(io.BytesIO(content), names=names, index_col=False, **options)
    except UsageError:
        raise
    except pd.errors.ParserWarning as error:
        raise UsageError(f"{path} has rows that are longer than its line of names") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8") from error
    except (ValueError, OSError, RecursionError) as error:  # pandas' errors are ValueErrors
        raise UsageError(f"{path} can't be read as a table: {one_line(error)}") from error


def _adult(folder: str | Path | None) -> "pd.DataFrame":
    import pandas as pd

    files = [find_file(Path("adult", name), folder) for name in ("adult.data", "adult.test")]
    if not all(file.is_file() for file in files):
        return _openml("adult", 2, Path("adult"), folder).rename(columns={"class": "income"})
    train = _read(files[0], _ADULT, na_values="?")
    test = _read(files[1], _ADULT, na_values="?", skiprows=1)  # "|1x3 Cross validator"
    frame = pd.concat([train, test], ignore_index=True)
    return frame.assign(income=frame["income"].str.rstrip("."))


def _german(folder: str | Path | None) -> "pd.DataFrame":
    file = find_file(Path("german", "german.data"), folder)
    if not file.is_file():
        frame = _openml("credit-g", 1, Path("german"), folder).rename(columns={"class": "credit"})
        return frame.assign(sex=frame["personal_status"].astype(str).str.split().str[0]).drop(columns="personal_status")
    frame = _read(file, _GERMAN, sep=" ")
    female = frame["personal-status"].isin(["A92", "A95"])
    frame = frame.assign(sex=female.map({True: "female", False: "male"}), credit=frame["credit"].map({1: "good", 2: "bad"}))
    return frame.drop(columns="personal-status")  # which says the sex


def _openml(name: str, version: int, where: Path, folder: str | Path | None) -> "pd.DataFrame":
    """A table from OpenML, kept in the cache.

    Raises:
        UsageError: it can't be downloaded.
    """
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of further tries
            return fetch_openml(name, version=version, as_frame=True, data_home=str(cache()), parser="auto").frame
    except Exception as error:  # scikit-learn and urllib raise many kinds
        places = ", ".join(str(place) for place in folders(folder))
        raise UsageError(
            f"{where} was not found (looked in {places}) and OpenML's '{name}' could not be downloaded ({one_line(error)}). Copy "
            "UCI's files to one of these folders, name another one with --data-dir, or use --data synthetic, which needs none."
        ) from error


# A table whose bias is known ------------------------------------------------------------------------------------------


def synthetic_table(rows: int = 4000, bias: float = 1.0, proxy: float = 1.5, seed: int = 0) -> Table:
    r"""A table in which two groups have equal merit and unequal outcomes, by a bias that is known.

    .. math:: a \sim \mathrm{Bernoulli}(1/2), \quad m \sim N(0, I_3), \quad
        y = [\,m_1 + m_2 + m_3 + b\,(2a - 1)/2 + \varepsilon > 0\,], \quad \varepsilon \sim N(0, 1)

    The features are the merits m, three columns of them with noise of standard deviation 1/2; two proxies of the group,
    p (2a - 1) / 2 + N(0, 1); and a category that is noise. So P(y = 1 | a) = Phi(b (2a - 1) / 4).

    Args:
        rows: number of rows.
        bias: b; 0 gives both groups the same chances.
        proxy: p, how much the proxies tell of the group.
        seed: of the draws.

    Raises:
        ValueError: rows is below 1, or a number is negative or not finite.

    Example:
        >>> table = synthetic_table(rows=20_000, bias=2.0)
        >>> rates = [table.target[table.sensitive == a].double().mean().item() for a in (0, 1)]
        >>> [round(rate, 2) for rate in rates]  # Phi(-1/2) and Phi(1/2)
        [0.31, 0.69]
    """
    import pandas as pd

    require_count(rows, "rows")
    require_number(bias, "bias", AtLeast(0))
    require_number(proxy, "proxy", AtLeast(0))
    generator = seeded(derive_seed(seed, "synthetic table"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator, dtype=torch.float64)

    a = (torch.rand(rows, generator=generator) < 0.5).long()
    side = (2 * a - 1) / 2
    merit = normal(3)
    y = (merit.sum(1) + bias * side + normal() > 0).long()
    columns = {f"merit_{i + 1}": merit[:, i] + normal() / 2 for i in range(3)}
    columns |= {f"proxy_{i + 1}": proxy * side + normal() for i in range(2)}
    frame = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    kinds = torch.randint(3, (rows,), generator=generator).tolist()
    frame["region"] = [("north", "south", "west")[kind] for kind in kinds]
    chance = 0.5 * (1 + math.erf(bias / 4 / math.sqrt(2)))
    note = f"Of the synthetic table's groups {1 - chance:.0%} and {chance:.0%} have the favorable outcome."
    return Table("the synthetic table", frame, a, y, ("A", "B"), ("denied", "granted"), note)
