"""What other people's optimizers, models and schedules do otherwise, as far as `train` does not offer it: written for
`benchmarks.ablations`, to compare.

Axes: B windows, L tokens, N tokens in a row, E hidden_size, V vocabulary.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.data.batches import Batch
from train.device import cpu_has_native_bf16
from train.numerics.linear_cross_entropy import linear_cross_entropy
from train.objective import ModelWithLoss
from train.optimizer import Muon, orthogonalize


class OwnMuon(Muon):
    """Muon, one matrix after the other; subclasses change the update or how it is applied."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                update = self._momentum(parameter, group["momentum"])
                update = orthogonalize(update.to(self.dtype)[None])[0].to(parameter.dtype)
                state = self.state[parameter]
                update = self.changed(update, state) * math.sqrt(max(1.0, parameter.shape[0] / parameter.shape[1]))
                self.apply(parameter, update, group, state)

    def changed(self, update: Tensor, state: dict[str, Any]) -> Tensor:
        """Another update than the orthogonal matrix."""
        return update

    def apply(self, parameter: Tensor, update: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        """Change the parameter."""
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


class NorMuon(OwnMuon):
    """Each row of the update over the root of its mean square so far, the whole at its old norm (arXiv:2510.05491)."""

    def changed(self, update: Tensor, state: dict[str, Any]) -> Tensor:
        norm = update.norm()
        mean_square = state.setdefault("rows", torch.zeros_like(update[:, :1]))
        mean_square.lerp_(update.square().mean(1, keepdim=True), 0.05)
        scaled = update / (mean_square.sqrt() + 1e-8)
        return scaled * (norm / (scaled.norm() + 1e-8))


class FixedNormMuon(OwnMuon):
    """No weight decay: after each update the matrix gets the Frobenius norm back that it began with, and an update is
    a share of that norm (hyperball optimization)."""

    def apply(self, parameter: Tensor, update: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        norm = state.setdefault("norm", parameter.norm())
        parameter.add_(update * (norm / (update.norm() + 1e-8)), alpha=-group["lr"])
        parameter.mul_(norm / (parameter.norm() + 1e-8))


class CautiousMuon(OwnMuon):
    """Weight decay only where it goes the way of the update (arXiv:2510.12402)."""

    def apply(self, parameter: Tensor, update: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        agrees = (update * parameter > 0).to(parameter.dtype)
        parameter.sub_(parameter * agrees, alpha=group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


class TorchMuon(torch.optim.Muon):
    """torch's; its own type is bfloat16, whatever the other one says."""

    def __init__(self, params: Iterable[nn.Parameter], *, dtype: torch.dtype, **settings: Any) -> None:
        super().__init__(params, **settings)


class MeanWeights:
    """The mean of a module's weights over some steps."""

    def __init__(self) -> None:
        self.count, self.sums = 0, {}

    @torch.no_grad()
    def add(self, module: nn.Module) -> None:
        """Count the weights as they are."""
        self.count += 1
        for name, parameter in module.named_parameters():
            self.sums[name] = self.sums.get(name, 0) + parameter.double()

    @torch.no_grad()
    def put_into(self, module: nn.Module) -> None:
        """Set the weights to the mean, if any were counted."""
        for name, parameter in module.named_parameters() if self.count else ():
            parameter.copy_(self.sums[name] / self.count)


class ValueEmbeddings(nn.Module):
    """A table of its own for the values of the first and the last layer: a token's row is added to its values, times a
    learned number (as in modded-nanogpt, after arXiv:2410.17897)."""

    def __init__(self, trained: ModelWithLoss) -> None:
        super().__init__()
        self.trained, self.ids_BL = trained, torch.empty(0)
        layers: Any = trained.model.model.layers
        width = layers[0].self_attn.v_proj.out_features
        self.tables: Any = nn.ModuleList(nn.Embedding(trained.model.config.vocab_size, width) for _ in range(2))
        self.factors = nn.Parameter(torch.full((2,), 0.5))
        for number, layer in enumerate((layers[0], layers[-1])):
            nn.init.normal_(self.tables[number].weight, std=0.02)
            layer.self_attn.v_proj.register_forward_hook(
                lambda projection, inputs, output, number=number: (
                    output + self.factors[number] * self.tables[number](self.ids_BL)
                )
            )

    def forward(self, input_BL: Tensor, target_BL: Tensor) -> Tensor:
        """The loss."""
        self.ids_BL = input_BL
        return self.trained(input_BL, target_BL)


class EmbeddingShortcut(nn.Module):
    """Each block reads the embeddings beside the residual stream, times a learned number (modded-nanogpt)."""

    def __init__(self, trained: ModelWithLoss) -> None:
        super().__init__()
        self.trained, self.first_BLE = trained, torch.empty(0)
        layers: Any = trained.model.model.layers
        self.factors = nn.Parameter(torch.zeros(len(layers)))
        trained.model.model.dropout.register_forward_hook(self.keep)
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(
                lambda block, inputs, number=number: (inputs[0] + self.factors[number] * self.first_BLE, *inputs[1:])
            )

    def keep(self, dropout: nn.Module, inputs: Any, output: Tensor) -> None:
        """Remember the embeddings of this pass."""
        self.first_BLE = output

    def forward(self, input_BL: Tensor, target_BL: Tensor) -> Tensor:
        """The loss."""
        return self.trained(input_BL, target_BL)


class TwoTokens(nn.Module):
    """A further MLP predicts the token after the next one from the last hidden state, as an auxiliary loss of weight
    0.3 (multi-token prediction, arXiv:2404.19737, with an MLP in place of a block)."""

    def __init__(self, trained: ModelWithLoss) -> None:
        super().__init__()
        self.trained = trained
        width = trained.model.config.hidden_size
        further: Any = nn.Sequential(nn.Linear(width, 4 * width, False), nn.SiLU(), nn.Linear(4 * width, width, False))
        self.further = nn.ModuleDict({"layers": further})  # by this name its matrices are Muon's
        nn.init.zeros_(further[-1].weight)

    def forward(self, input_BL: Tensor, target_BL: Tensor) -> Tensor:
        """The loss; in evaluation mode that of the next token alone."""
        if not self.training:
            return self.trained(input_BL, target_BL)
        model = self.trained.model
        hidden_BLE = model.model(input_ids=input_BL, use_cache=False)[0]
        next_loss = linear_cross_entropy(hidden_BLE.flatten(0, 1), model.lm_head.weight, None, target_BL.flatten())
        further_BLE = (hidden_BLE + self.further["layers"](hidden_BLE))[:, :-1]
        after = target_BL[:, 1:].flatten()
        return next_loss + 0.3 * linear_cross_entropy(further_BLE.flatten(0, 1), model.lm_head.weight, None, after)


def log_probabilities(trained: Any, input_BL: Tensor) -> Tensor:
    """Of every token at every position (N, V), in float32."""
    model = trained.model
    hidden_BLE = model.model(input_ids=input_BL, use_cache=False)[0]
    return functional.linear(hidden_BLE.flatten(0, 1), model.lm_head.weight).float().log_softmax(-1)


@torch.no_grad()
def mean_probabilities(teachers: list[nn.Module], input_BL: Tensor) -> Tensor:
    """The mean of the models' probabilities (N, V), as logarithms."""
    each = torch.stack([log_probabilities(teacher.eval(), input_BL) for teacher in teachers])
    return each.logsumexp(0) - math.log(len(teachers))


def ensemble_loss(models: list[Any], batches: list[Batch]) -> float:
    """Nats a token of the mean of the models' probabilities."""
    models = [getattr(model, "trained", model) for model in models]
    total = count = 0.0
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_native_bf16()):
            found = mean_probabilities(models, batch.input_BL).gather(1, batch.target_BL.flatten()[:, None])
        total -= found.sum().item()
        count += len(found)
    return total / count


class Distilled(nn.Module):
    """Half the loss of the text, half the cross-entropy with the teachers' mean probabilities (arXiv:1503.02531)."""

    def __init__(self, trained: ModelWithLoss, teachers: list[Any]) -> None:
        super().__init__()
        self.trained = trained
        self.teachers = [getattr(teacher, "trained", teacher) for teacher in teachers]  # a list: not to be trained

    def forward(self, input_BL: Tensor, target_BL: Tensor) -> Tensor:
        """The loss."""
        taught_NV = mean_probabilities(self.teachers, input_BL).exp()
        log_NV = log_probabilities(self.trained, input_BL)
        text = functional.nll_loss(log_NV, target_BL.flatten())
        return (text - (taught_NV * log_NV).sum(-1).mean()) / 2
