from functools import partial

import torch
from torch import nn

from pyzoo.training import Objective

SGD = partial(torch.optim.SGD, lr=0.1)


def test_an_objective_moves_all_of_its_module_or_what_it_is_given():
    module = nn.Linear(2, 3)
    assert Objective(module, SGD).parameters == [module.weight, module.bias]
    assert Objective(module, SGD, moves=[module.bias]).parameters == [module.bias]
    groups = [{"params": [module.bias], "lr": 0.5}, {"params": [module.weight]}]
    objective = Objective(module, SGD, moves=groups)
    assert objective.parameters == [module.bias, module.weight]
    optimizer = objective.optimizer(objective.groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert groups[1].keys() == {"params"}  # torch writes its defaults into the dicts that it is given


def test_columns_have_the_objectives_name_before_them():
    assert Objective(nn.Linear(1, 1), SGD).column("loss") == "loss"
    assert Objective(nn.Linear(1, 1), SGD, name="critic").column("loss") == "critic/loss"
