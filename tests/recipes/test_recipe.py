import dataclasses
from importlib.metadata import EntryPoint

import pytest
import torch

from pyzoo.about import About, about_all, entries
from pyzoo.errors import UsageError
from pyzoo.recipes.compvae.recipe import CompVAESines
from pyzoo.recipes.graph_vae.recipe import FCVAE, GraphVAERecipe
from pyzoo.training import Report, find_recipe, find_table
from pyzoo.training.recipe import load_entry
from pyzoo.training.table import _mean_and_spread
from tiny import graph, sines
from toy import toy


def test_recipes_and_tables_are_found_by_name():
    assert find_recipe("graph-vae") is GraphVAERecipe
    with pytest.raises(UsageError, match="unknown recipe 'graph'; there are compvae-colors, compvae-sines, fc-vae"):
        find_recipe("graph")
    assert find_table("graph-vae-table1").name == "graph-vae-table1"
    with pytest.raises(UsageError, match="unknown table 'table1'; there are graph-vae-figure4"):
        find_table("table1")


@pytest.mark.parametrize("value", ["nowhere.at_all:Recipe", "pyzoo.training:NoRecipe"])
def test_an_entry_point_that_leads_nowhere(value):
    with pytest.raises(UsageError, match="can't be imported"):
        load_entry(EntryPoint("x", value, "pyzoo.recipes"))


@pytest.mark.parametrize("group", ["pyzoo.recipes", "pyzoo.tables"])
def test_the_list_says_of_each_what_it_itself_says(group):
    found = about_all(group)
    assert found.keys() == entries(group).keys()
    for name, entry in entries(group).items():
        assert found[name] == entry.load().about
        assert isinstance(found[name], About)


def test_a_package_that_can_not_be_imported_is_named_and_the_list_goes_on(monkeypatch):
    ours = entries("pyzoo.recipes")["graph-vae"]
    broken = EntryPoint("broken", "nowhere.at_all:Recipe", "pyzoo.recipes")
    monkeypatch.setattr("pyzoo.about.entries", lambda group: {"graph-vae": ours, "broken": broken})
    found = about_all("pyzoo.recipes")
    assert found["graph-vae"] == ours.load().about
    assert found["broken"].line == "nowhere.at_all:Recipe: ModuleNotFoundError: No module named 'nowhere'"


def test_of_two_recipes_of_one_name_ours_is_meant(monkeypatch):
    theirs = EntryPoint("vae", "another.package:VAE", "pyzoo.recipes")
    ours = entries("pyzoo.recipes")["vae"]
    for order in ([theirs, ours], [ours, theirs]):
        monkeypatch.setattr("pyzoo.about.entry_points", lambda group, order=order: order)
        assert entries("pyzoo.recipes") == {"vae": ours}


@pytest.mark.parametrize(
    ("settings", "interval"),
    [
        ({"steps": 1000, "log_every": 50}, 100),
        ({"steps": 1000, "log_every": 30}, 90),
        ({"steps": 10, "log_every": 50}, 50),
        ({"steps": 1000, "log_every": 50, "validate_every": 7}, 7),
    ],
)
def test_held_out_examples_are_measured_ten_times_in_whole_rows(settings, interval):
    assert sines(**{"validate_every": 0, **settings}).validation_interval == interval


def test_a_recipe_without_a_report_has_nothing_to_show():
    recipe = toy(lambda pair: [])
    pair = recipe.programs()
    report = Report()
    assert (report.monitor(1), report.validate(1), report.metrics(), report.can_validate) == ({}, {}, {}, False)
    assert list(report.figures([])) == []
    with pytest.raises(UsageError, match="no samples to draw"):
        report.sample(3, 0)
    with pytest.raises(UsageError, match="no picture of its samples"):
        report.picture({})
    assert recipe.note == ""
    assert pair.num_parameters == 4


def test_a_pair_counts_shared_parameters_once_and_moves_together():
    pair = graph().programs()
    gates = sum(p.numel() for p in pair.model.gates.parameters())
    alone = [sum(p.numel() for p in program.parameters()) for program in pair]
    assert pair.num_parameters == sum(alone) - gates
    moved = pair.to("cpu")
    assert moved.model is pair.model
    assert not moved.eval().guide.training


def test_programs_are_as_the_seed_says():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(sines().programs().model.state_dict())
    same = [all(torch.equal(states[0][name], other[name]) for name in other) for other in states[1:]]
    assert same == [True, False]


def test_recipes_are_frozen_and_comparable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        sines().steps = 3
    assert sines() == sines()
    assert sines() != sines(seed=1)
    assert CompVAESines.preset() != FCVAE.preset()


def test_small_numbers_of_a_table_keep_their_digits():
    assert _mean_and_spread([0.0013, 0.0025], 2) == "0.0019 ± 0.0008"
    assert _mean_and_spread([0.934, 0.711], 3) == "0.82 ± 0.16 (n = 2)"
    assert _mean_and_spread([4148.0, 4150.0], 2) == "4,149 ± 1"
    assert _mean_and_spread([1.0, 1.0, 1.0, 0.0], 4) == "0.75 ± 0.50"  # shares of successes
    assert _mean_and_spread([10.0, 10.0], 2) == "10"
    assert _mean_and_spread([0.5, float("nan"), 0.7], 3) == "0.60 ± 0.14 (n = 2)"
    assert _mean_and_spread([float("inf")], 1) == "-"
