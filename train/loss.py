"""A model and its loss as one module: what DDP, FSDP2 and torch.compile wrap, so that logits are never held at once.

Axes in tensor names: B batch, L tokens, N tokens of all sequences in a row, E hidden_size.
"""

from typing import Any

import torch
from torch import nn

from modeling import ScratchGPTForMaskedLM
from train.data.batches import IGNORED
from train.kernels import linear_cross_entropy


class ModelWithLoss(nn.Module):
    """Computes the loss of a causal or masked ScratchGPT model from its hidden states and its output layer's weights.

    The same number as the model's own forward with labels, but the logits of `kernels.CROSS_ENTROPY_ROWS` tokens at a
    time. The output layer must be a plain `nn.Linear`, whose weights are used without calling it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        assert type(model.lm_head) is nn.Linear
        self.model = model
        self.is_masked = isinstance(model, ScratchGPTForMaskedLM)
        # accelerate reads these off what it is given: the layers that FSDP2 shards one by one, and how to tie weights.
        self._no_split_modules = model._no_split_modules
        self.tie_weights = model.tie_weights

    def forward(
        self, input_BL: torch.Tensor, target_BL: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Mean cross-entropy in nats a target; a scalar.

        Args:
            input_BL: token ids.
            target_BL: the token to predict at each place: the next one, or for a masked model the one that was hidden;
                -100 is left out.
            num_items_in_batch: divides the sum of the losses in place of the number of targets.
        """
        hidden_BLE = self.model.model(input_ids=input_BL, use_cache=False, is_causal=not self.is_masked)[0]
        if self.is_masked:  # few places have a target: only those go through the output layer
            asked_BL = target_BL != IGNORED
            hidden_NE, target_N = hidden_BLE[asked_BL], target_BL[asked_BL]
        else:
            hidden_NE, target_N = hidden_BLE.flatten(0, 1), target_BL.flatten()
        head = self.model.lm_head
        return linear_cross_entropy(hidden_NE, head.weight, head.bias, target_N, num_items_in_batch)
