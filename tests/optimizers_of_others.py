"""Optimizers as one finds them: SAM in two steps, Lookahead, subclasses that call their base, and worse."""

import torch


class Sam(torch.optim.Optimizer):
    """As in the widely copied implementation: the base optimizer's step is called from `second_step`."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for each in group["params"]:
                self.state[each]["old"] = each.detach().clone()
                each.add_(each.grad, alpha=group["rho"])
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for each in group["params"]:
                each.data = self.state[each]["old"]
        self.base_optimizer.step()
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        self.first_step()
        torch.enable_grad()(closure)()
        self.second_step()


class Lookahead(torch.optim.Optimizer):
    """Moves halfway back to slow weights after each step of the optimizer inside."""

    def __init__(self, inner):
        super().__init__([{"params": group["params"]} for group in inner.param_groups], {})
        self.inner = inner
        self.slow = [each.detach().clone() for group in inner.param_groups for each in group["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step(closure)
        parameters = [each for group in self.param_groups for each in group["params"]]
        for each, slow in zip(parameters, self.slow, strict=True):
            slow.lerp_(each, 0.5)
            each.copy_(slow)


class Together(torch.optim.Optimizer):
    """Several optimizers behind one `step`, which sets itself up without torch."""

    def __init__(self, optimizers):
        self.optimizers, self.state, self.defaults = optimizers, {}, {}
        self.param_groups = [group for each in optimizers for group in each.param_groups]

    def step(self, closure=None):
        for each in self.optimizers:
            each.step(closure)

    def zero_grad(self, set_to_none=True):
        for each in self.optimizers:
            each.zero_grad(set_to_none)


class WithoutHooks(torch.optim.Optimizer):
    """Sets itself up without torch, and steps by itself."""

    def __init__(self, params):
        self.param_groups, self.state, self.defaults = [{"params": list(params), "lr": 0.1}], {}, {}

    def step(self, closure=None):
        """Does nothing."""


class OfBase(torch.optim.SGD):
    """Calls the step of its base, whose hooks are this one's too."""

    def step(self, closure=None):
        return super().step(closure)


class ZeroesItsGradient(torch.optim.SGD):
    """Drops the gradient within its step."""

    def step(self, closure=None):
        answer = super().step(closure)
        self.zero_grad()
        return answer


class WithoutRate(torch.optim.Optimizer):
    """Has no learning rate of its own, as Adafactor with lr=None."""

    def __init__(self, params):
        super().__init__(params, {"lr": None, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002 - as torch's
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.sub_(each.grad, alpha=0.1)
