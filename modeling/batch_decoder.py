"""One token of several texts in one pass, on the CPU in float32: `modeling.fast_decoder` for a batch.

The weights are read once for all texts instead of once for each, and matrix products of a few rows use the arithmetic
that a single row leaves idle. A text reads its prompt by itself, in a `FastDecoder`; then its keys and values move to a
slot beside those of the others (`Slots`), so that all of them attend in one product.

A text must not depend on its company: the same seed gives the same text alone and among nineteen others. So nothing
here may round differently because of other rows. Norms, activations and additions work row by row. The matrix products
are oneDNN's with packed weights, whose rows are the same bits for any number of rows (a plain `torch.mm` of one row
uses another kernel than one of four). In attention, zeros follow the keys and values of a shorter text, and have a
weight of exactly 0. Both are tried on this machine before they are relied on.

Axes: N texts, E hidden size, W queries, keys and values of all heads, V vocabulary, S places that are attended to, Z
key/value heads of all texts in a row; others as in `fast_decoder`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from modeling.configuration_scratchgpt import ScratchGPTConfig
from modeling.fast_decoder import FastBlock, FastDecoder, weighted_sum
from modeling.loading import context_length
from modeling.modeling_scratchgpt import ScratchGPTForCausalLM

LANES = 32
"""Numbers that a vectorised activation takes at a time, at most (AVX-512). It rounds those left over at the end of a
tensor in another way: which they are depends on the number of rows, unless the rows are multiples of this."""
PIECE = 64
"""Texts of a pass attend to as many places as the longest has tokens, rounded up to a multiple of this …"""
SMALL_PRODUCT = 400
"""… or of more: torch computes products of fewer multiplications in another way."""
ALIGNED = 8
"""Keys and values are a multiple of so many numbers, zeros among them: kernels take another path at odd addresses."""


SUMS = (2**62, 1024, 512)
"""Inputs whose products oneDNN adds up before it adds that sum to the others': all, or so many (AVX2, AVX-512)."""
ROW_LIMIT = 2**20
"""Numbers of a matrix that is copied for the products of single rows: a larger one takes much longer than a call."""


class CannotBatchError(ValueError):
    """Here texts of this model cannot share passes, or not without depending on each other."""


def bytes_of_a_text(config: ScratchGPTConfig) -> int:
    """The memory that a text as long as the context takes: its own buffer while it reads its prompt, then its slot.

    The config says it before there is a decoder, which computes tables of the whole context."""
    G, H, D = cast(int, config.num_key_value_heads), config.num_attention_heads, cast(int, config.head_dim)
    context = config.max_position_embeddings
    own = (H + 2 * G) * D * context
    slot = 2 * G * rounded_up(D, ALIGNED) * rounded_up(context, piece_of(H // G, D))
    return 4 * config.num_hidden_layers * max(own, slot)


def piece_of(R: int, D: int) -> int:
    """The places of a piece, where R heads of D numbers share keys and values."""
    return PIECE * -(-SMALL_PRODUCT // (PIECE * R * D))


def rounded_up(number: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-number // step) * step


class PackedLinear:
    """x @ weight + bias (weight: inputs, outputs) with the weight in the layout that oneDNN computes with.

    A single row goes another way, to the same bits. A call of oneDNN takes 8 us before it computes, as long as a matrix
    of 256 x 768 takes here, so a row is a weighted sum of the weight's rows (`embedding_bag`): like oneDNN, it adds the
    fused products of one input after the other. Where its bits are others, oneDNN computes the row, alone or twice.

    Raises CannotBatchError where a row's result is not the same bits among any number of rows up to `width`.
    """

    def __init__(self, weight_t: Tensor, bias: Tensor | None, width: int) -> None:
        self.bias, self.inputs = bias, len(weight_t)
        singles = [self._many, lambda x_1I: self._many(x_1I.repeat(2, 1))[:1]]
        if weight_t.is_contiguous() or weight_t.numel() <= ROW_LIMIT:
            singles = [self._weighted_sum(weight_t.contiguous(), size) for size in SUMS] + singles
        try:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_t.t().contiguous(), width)
            x_NI = torch.randn(width, self.inputs, generator=torch.Generator().manual_seed(0))
            together = self._many(x_NI).view(torch.int32)  # bits: NaN is no other NaN's equal

            def is_same(product: Callable[[Tensor], Tensor], start: int, size: int) -> bool:
                rows = slice(start, start + size)
                return torch.equal(product(x_NI[rows]).view(torch.int32), together[rows])

            same = (single for single in singles if all(is_same(single, row, 1) for row in range(width)))
            self.single = next(same, self._many)
            are_same = all(is_same(self, start, size) for size in range(1, width) for start in {0, width - size})
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise CannotBatchError(f"torch {torch.__version__} packs no weights here: {error}") from error
        if not are_same:
            raise CannotBatchError("a row of oneDNN's matrix product depends on the other rows here")

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs (..., O) of inputs (..., I)."""
        if x.numel() != self.inputs:
            return self._many(x)
        return self.single(x) if x.ndim == 2 else self.single(x.reshape(1, -1)).view(*x.shape[:-1], -1)

    def _many(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def _weighted_sum(self, weight_IO: Tensor, size: int) -> Callable[[Tensor], Tensor]:
        """The product of a single row, as the sum of sums over so many inputs each."""
        begin_B = torch.arange(0, self.inputs, size)

        def product(x_1I: Tensor) -> Tensor:
            sum_BO = weighted_sum(x_1I, weight_IO, begin_B)
            sum_1O = sum_BO[:1]
            for block in range(1, len(sum_BO)):
                sum_1O = sum_1O + sum_BO[block]
            return sum_1O if self.bias is None else sum_1O + self.bias

        return product


class BatchDecoder:
    """Reads one token of each of up to `width` texts in one pass; one pass at a time, under `torch.inference_mode`.

    Args:
        model: one that `can_batch`.
        width: texts of one pass at most.

    Raises:
        CannotBatchError: where texts would depend on each other.
    """

    def __init__(self, model: ScratchGPTForCausalLM, width: int) -> None:
        self.width, self.context = width, context_length(model) or 0
        self.first = FastDecoder(model, self.context)
        self.blocks = [BatchBlock(block, width) for block in self.first.blocks]
        self.head = PackedLinear(self.first.head_EV, self.first.head_bias_V, width)
        self.groups = [Slots(self.first.blocks, width)]
        self.groups[0].check(self.context)

    def new_text(self, capacity: int) -> "BatchText":
        """The decoder of a text of up to `capacity` tokens."""
        return BatchText(self.first.for_another_text(capacity), capacity)

    def step(self, texts: "Sequence[BatchText]", token_ids: Sequence[int]) -> Tensor:
        """Read one token of each text after those that it has; the logits (N, V) of the tokens that come next."""
        assert len(set(texts)) == len(texts) <= self.width
        first, slots = self.first, self._group(texts)
        slots.hold(texts)
        id_of = dict(zip(texts, token_ids, strict=True))
        x_NE = first.token_VE[torch.tensor([id_of[text] for text in slots.texts])]
        begin_N = torch.tensor([text.length for text in slots.texts])
        if first.scale != 1:
            x_NE = x_NE * first.scale
        if first.position_TE is not None:
            x_NE = x_NE + first.position_TE[begin_N]
        seen = slots.begin_pass(begin_N)
        for block, layer in zip(self.blocks, slots.layers, strict=True):
            x_NE = block(x_NE, layer, seen)
        for text in texts:
            text.decoder.length += 1
        logits_NV = self.head(first.norm(x_NE))
        order = [slots.texts.index(text) for text in texts]
        return logits_NV if order == [*range(len(texts))] else logits_NV[torch.tensor(order)]

    def _group(self, texts: "Sequence[BatchText]") -> "Slots":
        """The slots that hold most of these texts. Where there are more texts than `width`, each part of them has slots
        of its own: they would move in and out with every pass."""
        wanted = set(texts)
        group = max(self.groups, key=lambda slots: (len(wanted & set(slots.texts)), -len(slots.texts)))
        if group.texts and not wanted & set(group.texts):
            group = Slots(self.first.blocks, self.width)
            self.groups = [slots for slots in self.groups if slots.texts] + [group]
        return group


class BatchText:
    """A text of a `BatchDecoder`: it reads its prompt by itself, and then has a slot among the others.

    Args:
        decoder: of this text alone; while the text has a slot, it holds no keys and values.
        capacity: tokens at most.
    """

    reads_in_chunks = FastDecoder.reads_in_chunks

    def __init__(self, decoder: FastDecoder, capacity: int) -> None:
        self.decoder, self.capacity = decoder, capacity
        self.slots: Slots | None = None

    @property
    def length(self) -> int:
        """Tokens that were read."""
        return self.decoder.length

    def read(self, token_ids: list[int]) -> Tensor:
        """`FastDecoder.read`."""
        self.leave()
        return self.decoder.read(token_ids)

    def reset(self) -> None:
        """Forget all tokens."""
        self.decoder.reset()
        self.leave()

    def close(self) -> None:
        """Give up the slot: nothing more is read."""
        if self.slots is not None:
            self.slots.drop(self)

    def leave(self) -> None:
        """Take keys and values back, from the slot that it has, if any."""
        if self.slots is not None:
            self.slots.release(self)


class Slots:
    """The keys and values of the texts of a pass, in one buffer a layer, with room for as many texts, and tokens of
    each, as there have been since there was none.

    Args:
        blocks: of the model.
        width: texts at most.
    """

    def __init__(self, blocks: Sequence[FastBlock], width: int) -> None:
        block = blocks[0]
        self.shape = _, R, D = block.G, block.H // block.G, block.D
        self.piece, self.phase_THF = piece_of(R, D), block.phase_THF
        self.width, self.layer_count = width, len(blocks)
        self._begin()

    def _begin(self) -> None:
        self.count, self.tokens = 2, self.piece
        self.texts: list[BatchText] = []
        self.layers = [Layer(self.shape, self.count, self.tokens) for _ in range(self.layer_count)]

    def hold(self, texts: Sequence[BatchText]) -> None:
        """Let the first slots be those of these texts, in whatever order, and no others."""
        wanted, tokens = set(texts), max(text.length for text in texts) + 1
        for text in [text for text in self.texts if text not in wanted]:
            self.release(text)
        if len(texts) > self.count or tokens > self.tokens:
            count = max(self.count, min(self.width, 2 * len(texts)))
            tokens = max(self.tokens, self.whole_pieces(tokens))
            for layer in self.layers:
                layer.grow(count, tokens)
            self.count, self.tokens = count, tokens  # at last: there may be no memory for a layer
        for text in texts:
            if text.slots is self:
                continue
            text.leave()
            for layer, block in zip(self.layers, text.decoder.blocks, strict=True):
                layer.take(len(self.texts), block, text.length)
                block.allocate(0)
            self.texts.append(text)
            text.slots = self

    def release(self, text: BatchText) -> None:
        """Give a text its keys and values back, and its slot to the last text."""
        slot = self.texts.index(text)
        for layer, block in zip(self.layers, text.decoder.blocks, strict=True):
            block.allocate(text.capacity)
            layer.give(slot, block, text.length)
        self.drop(text)

    def drop(self, text: BatchText) -> None:
        """Give its slot to the last text; with the last text the memory goes."""
        slot, last = self.texts.index(text), self.texts.pop()
        text.slots = None
        if not self.texts:
            self._begin()
        elif last is not text:
            self.texts[slot] = last
            for layer in self.layers:
                layer.move(len(self.texts), slot)

    def whole_pieces(self, tokens: int) -> int:
        """The next multiple of a piece."""
        return rounded_up(tokens, self.piece)

    def begin_pass(self, begin_N: Tensor) -> "Seen":
        """What the next token of each text sees, which comes to these places."""
        G, R, _ = self.shape
        places = self.whole_pieces(int(begin_N.max()) + 1)
        count = max(-(-2 // G), len(begin_N))  # a product alone would be of another kind
        mask_NS = torch.zeros(count, places, dtype=torch.float32)
        mask_NS[: len(begin_N)].masked_fill_(torch.arange(places) > begin_N[:, None], -torch.inf)
        mask_ZRS = mask_NS[:, None, None].expand(-1, G, R, -1).reshape(count * G, R, places)
        phase_NHF = None if self.phase_THF is None else self.phase_THF[begin_N]
        return Seen(begin_N=begin_N, slot_N=torch.arange(len(begin_N)), phase_NHF=phase_NHF, mask_ZRS=mask_ZRS)

    def check(self, context: int) -> None:
        """Try random queries, keys and values of `width` texts of up to `context` tokens, alone and in company. Raises
        CannotBatchError where they differ."""
        G, R, D = self.shape
        generator = torch.Generator().manual_seed(0)
        lengths = [context, 1, self.piece, self.piece + 1, context // 2 + 1, 3, 3 * context // 4, 2 * self.piece]
        length_N = torch.tensor([min(context, lengths[text % len(lengths)]) for text in range(self.width)])
        layer = Layer(self.shape, self.width + 1, self.whole_pieces(context))
        layer.keys_NGTD.normal_(generator=generator)
        layer.values_NGTD.normal_(generator=generator)
        query_NGRD = torch.randn(self.width, G, R, D, dtype=torch.float32, generator=generator)
        together = layer.attend(query_NGRD, self.begin_pass(length_N - 1)).view(torch.int32)
        alone = [(text, text + 1) for text in range(min(len(lengths), self.width))]
        for start, end in [*alone, (0, 3), (1, 6), (self.width // 2, self.width)]:
            rows = slice(min(start, self.width - 1), end)
            some = layer.from_slot(rows.start).attend(query_NGRD[rows], self.begin_pass(length_N[rows] - 1))
            if not torch.equal(some.view(torch.int32), together[rows]):
                raise CannotBatchError("a text's attention depends on the other texts here")


class Layer:
    """One layer's keys and values of all slots (N, G, T, D)."""

    def __init__(self, shape: tuple[int, int, int], count: int, tokens: int) -> None:
        G, _, self.D = shape
        self.keys_NGTD = torch.zeros(count, G, tokens, rounded_up(self.D, ALIGNED), dtype=torch.float32)
        self.values_NGTD = torch.zeros_like(self.keys_NGTD)

    def from_slot(self, slot: int) -> "Layer":
        """The slots from this one on."""
        other = copy.copy(self)
        other.keys_NGTD, other.values_NGTD = self.keys_NGTD[slot:], self.values_NGTD[slot:]
        return other

    def grow(self, count: int, tokens: int) -> None:
        """Make room for so many texts and tokens."""
        room = (0, 0, 0, tokens - self.keys_NGTD.shape[2], 0, 0, 0, count - len(self.keys_NGTD))
        self.keys_NGTD, self.values_NGTD = pad(self.keys_NGTD, room), pad(self.values_NGTD, room)

    def take(self, slot: int, block: FastBlock, length: int) -> None:
        """Copy the first keys and values of a text's own buffer, and let zeros follow."""
        for mine_GTD, own_GTD in self.pairs(slot, block):
            mine_GTD[:, :length] = own_GTD[:, :length]
            mine_GTD[:, length:] = 0

    def give(self, slot: int, block: FastBlock, length: int) -> None:
        """Copy them back."""
        for mine_GTD, own_GTD in self.pairs(slot, block):
            own_GTD[:, :length] = mine_GTD[:, :length]

    def pairs(self, slot: int, block: FastBlock) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Those of a slot and of a text's own buffer: keys, then values."""
        keys_GTD, values_GTD = (x_NGTD[slot, :, :, : self.D] for x_NGTD in (self.keys_NGTD, self.values_NGTD))
        return (keys_GTD, block.key_GDT.transpose(1, 2)), (values_GTD, block.value_GTD)

    def put(self, key_NGD: Tensor, value_NGD: Tensor, seen: "Seen") -> None:
        """A key and a value more of each text."""
        self.keys_NGTD[seen.slot_N, :, seen.begin_N, : self.D] = key_NGD
        self.values_NGTD[seen.slot_N, :, seen.begin_N, : self.D] = value_NGD

    def move(self, source: int, slot: int) -> None:
        """Copy a slot to another one."""
        self.keys_NGTD[slot], self.values_NGTD[slot] = self.keys_NGTD[source], self.values_NGTD[source]

    def attend(self, query_NGRD: Tensor, seen: "Seen") -> Tensor:
        """The heads' outputs (N, H x D) of a token of each text, which has its key and value."""
        texts, G, R, D = query_NGRD.shape
        count, places = len(seen.mask_ZRS) // G, seen.mask_ZRS.shape[2]
        if count > texts or D % ALIGNED:
            query_NGRD = pad(query_NGRD, (0, -D % ALIGNED, 0, 0, 0, 0, 0, count - texts))
        query_ZRD = query_NGRD.flatten(0, 1)
        key_ZSD, value_ZSD = (x_NGTD[:count].flatten(0, 1)[:, :places] for x_NGTD in (self.keys_NGTD, self.values_NGTD))
        score_ZRS = torch.baddbmm(seen.mask_ZRS, query_ZRD, key_ZSD.transpose(1, 2), alpha=self.D**-0.5)
        out_ZRD = torch.bmm(torch.softmax(score_ZRS, -1), value_ZSD)
        return out_ZRD.view(count, G * R, -1)[:texts, :, :D].flatten(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the tokens of a pass see."""

    begin_N: Tensor  # the place of each text's token
    slot_N: Tensor  # its slot
    phase_NHF: Tensor | None  # the rotation of its queries and keys (RoPE)
    mask_ZRS: Tensor  # 0 where it sees a place, else -inf


class BatchBlock:
    """One block's packed weights, and its arithmetic for one token of each of several texts."""

    def __init__(self, block: FastBlock, width: int) -> None:
        self.block = block
        self.qkv = PackedLinear(block.qkv_EW, block.qkv_bias_W, width)
        self.output = PackedLinear(block.output_WE, block.output_bias_E, width)
        spare = (0, -block.up_EI.shape[1] % LANES)  # hidden units that are 0

        def widened(weight_EI: Tensor, bias_I: Tensor | None) -> PackedLinear:
            return PackedLinear(pad(weight_EI, spare), None if bias_I is None else pad(bias_I, spare), width)

        self.up = widened(block.up_EI, block.up_bias_I)
        self.gate = None if block.gate_EI is None else widened(block.gate_EI, block.gate_bias_I)
        self.down = PackedLinear(pad(block.down_IE, (0, 0, *spare)), block.down_bias_E, width)

    def __call__(self, x_NE: Tensor, layer: Layer, seen: Seen) -> Tensor:
        """The residual stream after this block; the layer has a key and a value more of each text."""
        block = self.block
        if block.pre_norm:
            x_NE = x_NE + self.output(self.attend(block.attention_norm(x_NE), layer, seen))
            return x_NE + self.down(self.hidden(block.mlp_norm(x_NE)))
        x_NE = block.attention_norm(x_NE + self.output(self.attend(x_NE, layer, seen)))
        return block.mlp_norm(x_NE + self.down(self.hidden(x_NE)))

    def attend(self, x_NE: Tensor, layer: Layer, seen: Seen) -> Tensor:
        """The heads' outputs (N, H x D), before the output projection."""
        block = self.block
        head_NHD = self.qkv(x_NE).unflatten(1, (-1, block.D))
        rotated_NHD = head_NHD[:, : block.H + block.G]
        if block.head_norm is not None:
            block.head_norm(rotated_NHD, out=rotated_NHD)
        if seen.phase_NHF is not None:
            torch.view_as_complex(rotated_NHD.unflatten(-1, (-1, 2))).mul_(seen.phase_NHF)
        query_NHD, key_NGD, value_NGD = head_NHD.split((block.H, block.G, block.G), dim=1)
        layer.put(key_NGD, value_NGD, seen)
        return layer.attend(query_NHD.unflatten(1, (block.G, -1)), seen)

    def hidden(self, x_NE: Tensor) -> Tensor:
        """The MLP's hidden layer (N, I), before the projection back."""
        if self.gate is None:
            return self.block.activation(self.up(x_NE))
        return self.block.activation(self.gate(x_NE)).mul_(self.up(x_NE))
