import notebook_loop
import pytest
import torch

from crucible.experiment.model import TinyLM, loss_of, next_token_loss, parameter_count, seed_everything
from crucible.inputs.config import Config

SMALL = {"vocab_size": 50, "seq_len": 8, "hidden_dim": 8, "num_layers": 2, "num_heads": 2}


def made(config: Config) -> TinyLM:
    seed_everything(config.random_seed)
    return TinyLM(config)


def test_parameters_at_the_default_size():
    assert parameter_count(TinyLM(Config())) == 748_288


def test_the_order_of_construction_gives_the_notebooks_first_bits():
    config = Config(**SMALL, random_seed=5)
    seed_everything(5)
    theirs = notebook_loop.GPT(notebook_loop.Settings("", "", "", **SMALL, random_seed=5))
    ours = made(config)
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_a_position_sees_only_what_came_before():
    model = made(Config(**SMALL)).eval()
    ids = torch.arange(8)[None] + 3
    other = ids.clone()
    other[0, 5:] = 1
    with torch.no_grad():
        assert torch.equal(model(ids)[0, :5], model(other)[0, :5])
        assert not torch.equal(model(ids)[0, 5:], model(other)[0, 5:])


def test_the_loss_is_that_of_the_next_id():
    model = made(Config(**SMALL))
    ids = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = model(ids)
        logits = states @ model.token_embedding.weight.t()
        found = next_token_loss(states, model.token_embedding.weight, ids)
    total = 0.0
    for b in range(3):
        for p in range(7):
            total -= torch.log_softmax(logits[b, p].double(), 0)[ids[b, p + 1]].item()
    assert found.item() == pytest.approx(total / 21, rel=1e-5)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [1, 5, 21, 100])
def test_a_loss_in_slices_is_the_same_loss(compute, chunk):
    config = Config(**SMALL)
    ids = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(1))
    losses, gradients = [], []
    for size in (0, chunk):
        model = made(config).to(torch.bfloat16)
        loss = loss_of(model, ids, compute, size)
        loss.backward()
        losses.append(loss.item())
        gradients.append(model.token_embedding.weight.grad.float())
    assert losses[1] == pytest.approx(losses[0], rel=2e-3 if compute == "bfloat16" else 1e-6)
    assert torch.allclose(*gradients, rtol=0.1, atol=2e-3)


def test_float32_arithmetic_leaves_weights_and_gradients_in_bfloat16():
    model = made(Config(**SMALL)).to(torch.bfloat16)
    ids = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(1))
    loss = loss_of(model, ids, "float32")
    loss.backward()
    assert loss.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16}
    exact = made(Config(**SMALL)).to(torch.bfloat16).float()
    assert loss.item() == loss_of(exact, ids, "float32").item()
