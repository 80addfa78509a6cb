"""Slots: what is measured, drawn and sampled of a MONet, data of its own, and bad input."""

import pytest
import torch
from scene_records import write_scenes

import pyzoo
from pyzoo.data.scene_files import read_scenes
from pyzoo.data.scenes import tetrominoes
from pyzoo.errors import UsageError
from pyzoo.evaluation import foreground_ari
from pyzoo.recipes.slots.decomposition import decompose
from pyzoo.recipes.slots.recipe import GenesisRecipe, MONetRecipe, MPPGenesisRecipe, MPPMONetRecipe
from pyzoo.recipes.slots.tables import MPPAblations, MPPTable5
from pyzoo.settings import flat
from pyzoo.training import Hardware, Pair, Run
from tiny import SLOTS, trained_state

CPU = torch.device("cpu")


def slots(kind=MONetRecipe, **changes):
    settings = {**SLOTS, **changes}
    return kind.preset("small", **{name: value for name, value in settings.items() if name in flat(kind())})


@pytest.fixture(scope="module", params=[MONetRecipe, MPPMONetRecipe, GenesisRecipe, MPPGenesisRecipe])
def run(request, tmp_path_factory):
    recipe = slots(request.param)
    path = tmp_path_factory.mktemp(recipe.name) / "run"
    return Run.create(recipe, "small", Hardware("cpu"), path, None).train(progress=False)


def test_what_is_measured_and_drawn(run):
    metrics, recipe = run.metrics, run.recipe
    assert {"ari_fg", "msc_fg", "reconstruction_mse", "test_elbo"} <= metrics.keys()
    x = recipe.observed(recipe.measured_scenes.images)
    decomposed = decompose(*run.pair().eval(), x)
    assert (decomposed.masks.sum(1) - 1).abs().max() <= 1e-6
    segments = recipe.measured_scenes.segments
    expected = foreground_ari(decomposed.masks.argmax(1), segments).mean().item()
    elsewhere = foreground_ari(decomposed.masks.argmax(1).roll(-1, 0), segments).mean().item()
    assert metrics["ari_fg"] == pytest.approx(expected)
    assert metrics["ari_fg_elsewhere"] == pytest.approx(elsewhere)
    assert metrics["reconstruction_mse"] == pytest.approx((decomposed.reconstructions - x).square().mean().item(), rel=1e-5)
    assert ("drawn_distance" in metrics) == (recipe.name != "monet")
    names = {file.stem for file in run.folder.figures.iterdir()}
    drawn = [] if recipe.name == "monet" else ["samples", "figure9_samples"]
    assert names == {"figure8_decomposition", "exchange", "loss", "separation", *drawn}
    assert any("held_out_ari_fg" in row for row in run.history)


def test_scenes_are_drawn_where_slots_are_related(run):
    if run.recipe.name == "monet":
        with pytest.raises(UsageError, match="monet draws no scenes: its slots are independent"):
            run.sample(2)
        return
    drawn = run.sample(3)
    assert drawn["x"].shape == drawn["mean"].shape == (3, 3, 16, 16)
    with pytest.raises(UsageError, match="there is nothing 'slot' to condition on"):
        run.sample(1, given={"slot": 1})


@pytest.mark.parametrize("kind", [MONetRecipe, MPPMONetRecipe, GenesisRecipe, MPPGenesisRecipe])
@pytest.mark.parametrize("relation", ["color", "place"])
def test_relations_are_measured_where_they_were_planted(kind, relation):
    recipe = slots(kind, relation=relation)
    found = recipe.report(recipe.programs(), CPU).metrics()
    assert ("related_drawn" in found) == (kind is not MONetRecipe)
    assert all(torch.tensor(value).isfinite() for value in found.values())


def test_relations_learn_faster_as_the_networks_settle():
    recipe = slots(MPPMONetRecipe, steps=10, decay_after=0.5, relation_speed=4.0, learning_rate=1e-3)
    pair = recipe.programs()
    [objective] = recipe.objectives(pair)
    optimizer = objective.optimizer(objective.groups)
    scheduler = objective.scheduler(optimizer)
    networks, related = optimizer.param_groups
    assert {id(p) for p in related["params"]} == {id(p) for p in pair.model.relations.parameters()}
    rates = []
    for _ in range(10):
        rates.append((networks["lr"], related["lr"]))
        optimizer.step()
        scheduler.step()
    assert rates[:5] == [(1e-3, 1e-3)] * 5
    assert networks["lr"] == pytest.approx(0, abs=1e-9)
    assert related["lr"] == pytest.approx(4e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MONetRecipe, MPPMONetRecipe, GenesisRecipe, MPPGenesisRecipe])
def test_traced_steps_learn_what_eager_ones_learn(tmp_path, kind):
    recipe = slots(kind, steps=5)
    traced, eager = (trained_state(recipe, tmp_path / engine, engine) for engine in ("traced", "eager"))
    for name, value in traced.items():
        torch.testing.assert_close(value, eager[name], rtol=2e-3, atol=1e-4)


def test_sizes_follow_the_images():
    assert slots().sized().networks.x_shape == (3, 16, 16)
    assert slots(data="sprites", image_size=24).sized().networks.x_shape == (3, 24, 24)
    assert MONetRecipe.preset("paper").sized().networks.x_shape == (3, 64, 64)


def test_batches_are_scenes_of_the_seed():
    one, other = (slots(seed=seed).source(CPU).batch(3, 2)["x"] for seed in (0, 1))
    assert one.shape == (2, 3, 16, 16)
    assert not torch.equal(one, other)


def test_the_goal_of_genesis_is_per_channel_of_a_pixel():
    recipe = slots(GenesisRecipe, initial_beta=1.0, min_beta=1e-10, goal=0.5, goal_speed=1e-3)
    (objective,) = recipe.objectives(recipe.programs())
    assert objective.module.goal == 0.5 * 3 * 16 * 16
    objective.after_step(torch.zeros(()), {"x": torch.tensor(484.0)})
    assert objective.module.beta.item() == pytest.approx(torch.tensor(-0.1).exp().item())


def test_images_of_ones_own_have_no_masks(tmp_path):
    settings = {
        name: value for name, value in SLOTS.items() if name in flat(MONetRecipe()) and name not in ("data", "num_pieces")
    }
    run = pyzoo.train("monet", data=torch.rand(20, 3, 16, 16), out=tmp_path / "run", progress=False, device="cpu", **settings)
    assert "reconstruction_mse" in run.metrics
    assert "ari_fg" not in run.metrics


def test_the_learning_rate_falls_at_the_end():
    recipe = slots(steps=100, decay_after=0.5)
    (objective,) = recipe.objectives(recipe.programs())
    scheduler = objective.scheduler(objective.optimizer(objective.groups))
    assert [scheduler.lr_lambdas[0](step) for step in (0, 50, 75, 100)] == [1, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, "--num-slots must be at least 2"),
        ({"data": "sprites", "num_pieces": 10**6}, "--num-pieces must be at most 100"),
        ({"held_out": 0.1}, "--held-out and --validation are of your own images"),
        ({"data": "./nowhere"}, "/nowhere': --data takes tetrominoes, sprites"),
        ({"data": "dots"}, "there are no scenes 'dots': --data takes tetrominoes, sprites, mnist"),
        ({"relation": "size"}, "--relation must be one of none, color, place"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        slots(**changes).prepare()


def test_networks_are_asked_about_the_images_that_there_are():
    with pytest.raises(UsageError, match="images of 35 pixels on a side can't be halved 2 times: --image-size 36 can"):
        slots(image_size=35).prepare()
    deep = slots(image_size=128, attention_channels=(4,) * 7)  # too deep for the 64 pixels that are usual
    assert deep.programs().model(size=1).shape == (1, 3, 128, 128)


def test_pieces_of_ones_own_images_are_as_they_are(tmp_path):
    with pytest.raises(UsageError, match="--num-pieces is of scenes that are made"):
        pyzoo.train("monet", data=torch.rand(20, 3, 16, 16), out=tmp_path / "run", num_pieces=3)


def test_the_likelihood_of_the_table_is_that_of_monet():
    with pytest.raises(UsageError, match="--likelihood must be mixture with Genesis"):
        MPPTable5(models=("MONet", "Genesis"), likelihood="weighted")
    table = MPPTable5(models=("MONet",), relations=("none",), likelihood="weighted")
    assert table.recipe(table.rows()[0], 0).networks.likelihood == "weighted"


def test_relations_are_planted_in_generated_scenes_only():
    with pytest.raises(UsageError, match=r"--relations must be none with mine\.tfrecords"):
        MPPTable5(data="mine.tfrecords")


def test_a_single_image_to_train_on(tmp_path):
    with pytest.raises(UsageError, match="has 1 image to train on, and batch norm needs 2"):
        pyzoo.train("genesis", data=torch.rand(2, 3, 16, 16), out=tmp_path / "run", progress=False)


def test_a_row_that_cannot_be_trained_is_named():
    table = MPPAblations(global_dims=(16,))
    with pytest.raises(UsageError, match="row '16 global dimensions' cannot be trained: --global-dim must be below"):
        table.recipe(table.rows()[-2], 0)


def test_genesis_weights():
    with pytest.raises(UsageError, match="--min-beta must be at most --initial-beta"):
        slots(GenesisRecipe, initial_beta=0.1, min_beta=0.5)
    with pytest.raises(UsageError, match="--batch-size must be at least 2, for batch norm"):
        slots(GenesisRecipe, batch_size=1)
    recipe = slots(GenesisRecipe, initial_beta=0.5, mask_kl_weight=0.1)
    (objective,) = recipe.objectives(Pair(*recipe.programs()))
    weights = {
        name.removeprefix("kl_weight_"): value.item() for name, value in objective.module.loss.named_buffers(recurse=False)
    }
    assert weights["z_c"] == 0.5
    assert weights["z_m_1"] == pytest.approx(0.05)


def test_table_five_has_the_papers_numbers_where_scenes_are_the_papers():
    rows = {row.label: row for row in MPPTable5(models=("MONet", "MPP^M", "MPP^G")).rows()}
    assert {label for label, row in rows.items() if row.paper} == {"MONet", "MPP^M"}
    related = rows["MPP^M, two at mirrored places"].fields
    assert {name: related[name] for name in ("relation", "num_pieces", "num_slots")} == {
        "relation": "place",
        "num_pieces": 2,
        "num_slots": 3,  # the background's, and one for each piece
    }
    assert len({row.folder(0) for row in rows.values()}) == len(rows) == 6


def test_table_five_needs_masks():
    with pytest.raises(UsageError, match="--data must be tetrominoes, sprites or a file"):
        MPPTable5(relations=("none",), data="celeba")
    assert MPPTable5(relations=("none",), data="scenes.tfrecords").rows()


def test_ablations_change_one_thing_each():
    rows = MPPAblations().rows()
    plain, *others = (row.recipe.preset("small", **row.fields) for row in rows)
    found = [{name for name, value in flat(other).items() if value != flat(plain)[name]} for other in others]
    assert found[:-1] == [{"num_couplings"}] * 2 + [{"global_dim"}] * 3
    assert found[-1] == {"learn_relation_scales", "relation_scale", "scene_scale"}


@pytest.mark.parametrize("kind", [MPPMONetRecipe, GenesisRecipe])
def test_what_is_drawn_is_compared_with_the_scenes_of_a_file(tmp_path, kind):
    scenes = tetrominoes(20, torch.Generator().manual_seed(0), 35)
    path = write_scenes(tmp_path / "tetrominoes.tfrecords", scenes, 4)
    recipe = slots(kind, data=str(path), batch_size=4, mask_logit=0.0)
    found = recipe.report(recipe.programs(), CPU).metrics()
    assert 0 <= found["drawn_distance"] <= 1


def test_files_of_scenes_are_trained_on_and_their_masks_measured(tmp_path):
    scenes = tetrominoes(20, torch.Generator().manual_seed(0), 35)
    path = write_scenes(tmp_path / "tetrominoes.tfrecords", scenes, 4)
    recipe = slots(data=str(path), batch_size=4, held_out=0.25, validate_every=2, steps=4)
    run = Run.create(recipe, "small", Hardware("cpu"), tmp_path / "run", None).train(progress=False)
    assert run.recipe.train_size == 12
    assert {"ari_fg", "msc_fg"} <= run.metrics.keys()
    assert any("held_out_ari_fg" in row for row in run.history)
    assert "the last 4 to test on. Resized to 16x16." in run.recipe.note
    found = run.recipe.measured_images()[0], run.recipe.measured_segments()
    resized = read_scenes(path, image_size=16)
    assert torch.equal(found[0], resized.images[-4:])
    assert torch.equal(found[1], resized.segments[-4:])
    assert torch.equal(run.recipe.held_out_segments(), resized.segments[12:16])
    with pytest.raises(UsageError, match="--relation must be none with"):
        slots(data=str(path), relation="color", batch_size=4).prepare()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relation": "color", "num_pieces": 1}, "--num-pieces must be at least 2 with --relation color"),
        ({"relation": "place", "num_pieces": 5, "num_slots": 6}, "--num-pieces must be at most 4 with --relation place"),
        (
            {"relation": "color", "num_pieces": 3, "num_slots": 2},
            "--num-pieces must be at most --num-slots 2",
        ),
    ],
)
def test_what_cannot_be_related_is_refused_before_training(settings, message):
    with pytest.raises(UsageError, match=message):
        slots(MPPMONetRecipe, **settings)
