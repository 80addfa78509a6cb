"""What the newest recipes are given that does not fit: each is refused in one line, before anything is trained."""

import pytest
import torch

from pyzoo.data.files import image_data, write_npz
from pyzoo.data.tables import load_table, synthetic_table
from pyzoo.errors import UsageError
from pyzoo.training import Hardware, NonFiniteLoss, Run, find_table
from tiny import fair, graph, structure, trainer_of


def csv(path, rows):
    path.write_text("x,s,y\n" + "".join(f"{i % 17},{group},{outcome}\n" for i, (group, outcome) in enumerate(rows)))
    return str(path)


ROWS = [("a", "no"), ("a", "yes"), ("b", "no"), ("b", "yes")] * 40
OWN = {"target": "y", "sensitive": "s"}


@pytest.mark.parametrize("rare", [0, 2])
def test_a_group_without_favorable_outcomes_is_named_before_training(tmp_path, rare):
    rows = [("a", "no"), ("a", "yes"), ("b", "no")] * 60 + [("b", "yes")] * rare
    recipe = fair(data=csv(tmp_path / "t.csv", rows), **OWN, held_out=0.0, test_share=0.1)
    with pytest.raises(UsageError, match="no favorable outcome"):
        recipe.prepare()


def test_rows_to_train_on_that_have_one_outcome_are_named_before_training(tmp_path):
    rows = [("a", "yes"), ("b", "yes")] * 60 + [("a", "no"), ("b", "no")] * 2
    recipe = fair(data=csv(tmp_path / "t.csv", rows), **OWN, held_out=0.8, test_share=0.5, seed=0)
    with pytest.raises(UsageError, match="no unfavorable outcome"):
        recipe.prepare()


@pytest.mark.parametrize("share", [-0.1, 0, 1, float("nan"), "x"])
def test_shares_of_rows_are_checked(share):
    table = synthetic_table(rows=100)
    with pytest.raises(ValueError, match="share must be"):
        table.split(0)[0].hold_out(share)
    with pytest.raises(ValueError, match="test_share must be"):
        table.split(0, share)


@pytest.mark.parametrize(("content", "message"), [("x,s,y\n1,a,no,5\n", "longer than"), (b"\xff\xfex", "UTF-8")])
def test_what_is_wrong_with_a_table_is_said_in_our_words(tmp_path, content, message):
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        load_table(file, "y", "s")


def test_the_synthetic_table_has_its_own_columns():
    with pytest.raises(UsageError, match="--target"):
        load_table("synthetic", target="merit_1")


def test_a_table_that_has_changed_is_not_measured(tmp_path):
    file = csv(tmp_path / "t.csv", ROWS)
    run = Run.create(fair(data=file, **OWN, steps=2, batch_size=16), "synthetic", Hardware("cpu"), tmp_path / "run")
    run.train(progress=False, figures=False)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([f"z,{lines[0]}", *(f"{i % 7},{line}" for i, line in enumerate(lines[1:]))]))
    for ask in (Run(run.path).measure, Run(run.path).draw):
        with pytest.raises(UsageError, match="have changed"):
            ask()


@pytest.mark.slow
def test_a_run_does_not_go_on_with_a_table_of_other_values(tmp_path):
    """Rows that have changed places would be tested on after they have been trained on."""
    file = csv(tmp_path / "t.csv", ROWS)
    run = Run.create(fair(data=file, **OWN, steps=2, batch_size=16), "synthetic", Hardware("cpu"), tmp_path / "run")
    run.train(progress=False, figures=False)
    Run(run.path).measure()
    head, *lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([head, *reversed(lines)]))
    for ask in (Run(run.path).measure, Run(run.path).draw, Run(run.path).train):
        with pytest.raises(UsageError, match="have changed since it was trained"):
            ask()


def test_a_run_does_not_go_on_with_other_images(tmp_path):
    images, labels = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8), torch.arange(60) % 3
    write_npz(tmp_path / "i.npz", image_data(images, labels))
    recipe = graph(data=str(tmp_path / "i.npz"), steps=2, batch_size=8, held_out=0.0)
    run = Run.create(recipe, "digits", Hardware("cpu"), tmp_path / "run").train(progress=False, evaluate=False, figures=False)
    write_npz(tmp_path / "i.npz", image_data(images.flip(0), labels))
    with pytest.raises(UsageError, match="have changed since it was trained"):
        Run(run.path).measure()


def test_columns_that_are_nearly_numbers_are_named(tmp_path):
    lines = ["x,s,y", *(f"{i if i != 7 else '12,000'!r},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}" for i in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(line.replace("'", '"') for line in lines))
    note = load_table(str(tmp_path / "t.csv"), "y", "s").note
    assert (
        note
        == "Of 'y', 'yes' is favorable. Column 'x' is taken as categories: 1 of its 40 values are no numbers, such as '12,000'."
    )


def test_a_paper_table_of_few_rows_takes_a_batch_that_fits(tmp_path):
    table = find_table("mib-table3")(preset="adult", data=csv(tmp_path / "t.csv", ROWS), **OWN)
    for row in table.rows():
        table.recipe(row, 0).prepare()


def test_a_preset_that_changes_nothing_is_refused():
    with pytest.raises(UsageError, match="--preset"):
        find_table("mib-structures")(preset="digits")


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"structure": "z1 -> x1, e"}, "--environments"),
        ({"structure": "z1 -> x1, x2", "environments": 3}, "--environments"),
        ({"environments": 1}, "--environments"),
        ({"structure": "z1 -> e", "environments": 2}, "--structure"),
        ({"structure": "z1 -> size, x"}, "--structure"),
        ({"structure": "z1 -> x1.y, x"}, "--structure"),
        ({"structure": "x1 -> z1"}, "--structure"),
        ({"structure": "z1 -> \udcc3, x"}, "--structure"),
        ({"known_edges": "x1 -> z1"}, "--known-edges"),
        ({"absent_edges": "z9 -> x1"}, "--absent-edges"),
    ],
)
def test_a_structure_is_checked_where_it_is_given(settings, flag):
    with pytest.raises(UsageError, match=flag):
        structure(**settings)


def test_numbers_in_names_may_have_any_digits():
    assert structure(structure=f"z1 -> x{'9' * 5000}, x2").views[0] == "x2"


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"independence_weight": 1e38}, {"learning_rate": 1e30}])
@pytest.mark.parametrize("engine", ["traced", "eager"])
def test_a_training_that_overflows_never_saves_what_it_would_refuse(tmp_path, settings, engine):
    trainer = trainer_of(fair(steps=4, **settings), tmp_path / "run", engine)
    with pytest.raises(NonFiniteLoss):
        trainer.train()
    if trainer.run.checkpoints.files():
        assert trainer.run.checkpoints.load()["step"] < 4
