"""What is handed to `crucible.attach` by mistake is answered by a sentence: what was given, and what to call."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import crucible


@pytest.fixture
def embedding():
    return nn.Embedding(9, 4)


@pytest.fixture
def optimizer(embedding):
    return torch.optim.AdamW(embedding.parameters())


def refused(kind, target, optimizer, tmp_path):
    """The message; nothing is written."""
    with pytest.raises(kind) as raised:
        crucible.attach(target, optimizer, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return str(raised.value)


def test_a_list_of_optimizers_is_told_which_one(embedding, optimizer, tmp_path):
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    words = refused(TypeError, embedding, [other, optimizer], tmp_path)
    assert "not a list of 2; number 1 of these, an AdamW, holds it: call attach(target, optimizers[1], ...)" in words
    assert "optimizers[0]" in refused(TypeError, embedding, [other], tmp_path)


@pytest.mark.parametrize("given", ["AdamW", 0.1, [].append])
def test_what_is_no_optimizer(embedding, given, tmp_path):
    words = refused(TypeError, embedding, given, tmp_path)
    assert f"not a {type(given).__name__}: call attach(target, optimizer, run)" in words


def test_what_is_no_parameter_and_no_module(optimizer, tmp_path):
    assert "not a str: call attach(model.embedding, ...)" in refused(TypeError, "wte.weight", optimizer, tmp_path)
    assert "not a Parameter" not in refused(TypeError, None, optimizer, tmp_path)


def test_a_module_without_a_weight_is_told_the_embeddings_in_it(optimizer, tmp_path):
    model = nn.Sequential(nn.Sequential(nn.Embedding(9, 4)), nn.Linear(4, 9))
    words = refused(ValueError, model, optimizer, tmp_path)
    assert "this Sequential has no weight of its own: call attach(model, ..., parameter='0.0.weight')" in words
    assert "parameter='0.weight'" in refused(ValueError, nn.Sequential(nn.Linear(4, 9)), optimizer, tmp_path)
    assert "nor has any module in it" in refused(ValueError, nn.ReLU(), optimizer, tmp_path)


def test_a_parameter_of_another_optimizer(embedding, tmp_path):
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    assert "this SGD does not update the parameter" in refused(ValueError, embedding, other, tmp_path)


def test_a_frozen_parameter_that_nothing_updates(embedding, tmp_path):
    embedding.requires_grad_(requires_grad=False)
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    assert "frozen (requires_grad=False)" in refused(ValueError, embedding, other, tmp_path)


def test_a_tensor_that_is_computed(embedding, optimizer, tmp_path):
    assert "is computed from others" in refused(ValueError, embedding.weight * 2, optimizer, tmp_path)


@pytest.mark.parametrize("other", [lambda weight: weight.data, lambda weight: weight.detach()])
def test_an_alias_of_the_parameter(embedding, optimizer, other, tmp_path):
    words = refused(ValueError, other(embedding.weight), optimizer, tmp_path)
    assert "is another object (.data, detach()): pass the parameter itself" in words


class LowRank(nn.Module):
    """A frozen embedding and its adapter, named as peft names them."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base.requires_grad_(requires_grad=False)
        self.lora_embedding_A = nn.ParameterDict({"default": nn.Parameter(torch.zeros(2, 9))})

    @property
    def weight(self):
        return self.base_layer.weight


def test_an_adapter(embedding, tmp_path):
    adapted = LowRank(embedding)
    optimizer = torch.optim.SGD([each for each in adapted.parameters() if each.requires_grad], lr=0.1)
    words = refused(ValueError, adapted, optimizer, tmp_path)
    assert "adapter's (LoRA): its weight is frozen" in words
    assert "module.get_parameter('lora_embedding_A.default')" in words


def pruned(module):
    prune.random_unstructured(module, "weight", 0.5)
    return module


@pytest.mark.parametrize(
    ("compute", "part"),
    [
        (parametrizations.weight_norm, "parametrizations.weight.original1"),
        (parametrizations.spectral_norm, "parametrizations.weight.original"),
        (pruned, "weight_orig"),
    ],
)
def test_a_weight_that_is_computed_of_other_parameters(embedding, compute, part, tmp_path):
    computed = compute(embedding)
    optimizer = torch.optim.SGD(computed.parameters(), lr=0.1)
    words = refused(ValueError, computed, optimizer, tmp_path)
    assert "the weight of this ParametrizedEmbedding is no parameter" in words or "of this Embedding is no" in words
    assert f"attach(module.{part}, ...)" in words


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(9, 4)
        self.lm_head = nn.Linear(4, 9, bias=False)
        self.lm_head.weight = self.wte.weight


@pytest.mark.parametrize("name", ["wte.weight", "lm_head.weight"])
def test_a_parameter_is_found_by_either_of_its_names(name, tmp_path):
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = crucible.attach(model, optimizer, tmp_path / "run", parameter=name, channels=(crucible.W,))
    model.wte(torch.arange(9)).sum().backward()
    optimizer.step()
    assert recorder.step == 1
    model.get_submodule(name.rpartition(".")[0]).weight = nn.Parameter(torch.zeros(9, 4))
    with pytest.raises(RuntimeError, match="replaced in the model"):
        optimizer.step()


def test_a_name_that_the_model_does_not_have(tmp_path):
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def words(target, name):
        with pytest.raises((ValueError, TypeError)) as raised:
            crucible.attach(target, optimizer, tmp_path / "run", parameter=name)
        return str(raised.value)

    assert "this Tied has no parameter 'lm_haed.weight'; did you mean 'lm_head.weight'?" in words(
        model, "lm_haed.weight"
    )
    assert "did you mean 'wte.weight'?" in words(model, "wte")
    assert "it has wte.weight, lm_head.weight, ..." in words(model, "xyz")
    assert "give the model" in words(model.wte.weight, "wte.weight")
    assert "attach(model, ..., parameter='wte.weight')" in words(model, None)


def test_a_transposed_embedding_is_recorded_by_its_columns(tmp_path):
    weight = nn.Parameter(torch.randn(4, 9))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    table = (crucible.W, crucible.GRADIENT, crucible.ADAM_M, crucible.CENTROID)
    how = {"rows": [2, 7], "axis": 1, "channels": table}
    states = [weight.detach().t()[[2, 7]].numpy().copy()]
    with crucible.attach(weight, optimizer, tmp_path / "run", **how) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            weight.sin().sum().backward()
            optimizer.step()
            states.append(weight.detach().t()[[2, 7]].numpy().copy())
    ds = crucible.open_trajectory(tmp_path / "run")
    assert (ds.sizes["token"], ds.sizes["hidden"]) == (2, 4)
    np.testing.assert_array_equal(ds.W.values, np.stack(states))
    np.testing.assert_array_equal(ds.gradient.values[3], weight.grad.t()[[2, 7]].numpy())
    np.testing.assert_array_equal(ds.adam_m.values[3], optimizer.state[weight]["exp_avg"].t()[[2, 7]].numpy())
    np.testing.assert_allclose(ds.centroid.values, np.stack(states).mean(axis=1), rtol=1e-5)
    assert recorder.step == 3
    crucible.attach(weight, optimizer, tmp_path / "run", **how, resume=3).close()
    with pytest.raises(ValueError, match="the run records 2 rows"):
        crucible.attach(weight, optimizer, tmp_path / "run", axis=1, channels=table, resume=3)
