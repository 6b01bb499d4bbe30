"""The same tokenizer as a `tokenizer.json`, for the Rust backend of transformers.

Same ids as `ScratchGPTTokenizer` for every text that UTF-8 can hold. A lone surrogate it cannot: the Rust backend takes
no such string, while the from-scratch class encodes and decodes it.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokenization.tokenization_scratchgpt import BYTES, ScratchGPTTokenizer, byte_alphabet


def build_fast(tokenizer: ScratchGPTTokenizer) -> PreTrainedTokenizerFast:
    """The fast twin of a from-scratch tokenizer: same merges, same special tokens, same ids."""
    alphabet = byte_alphabet()

    def written(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    merges = [(written(first), written(second)) for first, second in tokenizer.merges]
    ordinary = alphabet + [first + second for first, second in merges]
    vocab = {token: index for index, token in enumerate(ordinary)}
    specials = tokenizer.special_tokens
    vocab.update({token: index for index, token in enumerate(specials, start=BYTES + len(merges))})
    rust = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=False))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tokenizer.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token_id >= tokenizer.vocab_size:
            (rust.add_special_tokens if token.special else rust.add_tokens)([token])
    named = {
        name: getattr(tokenizer, name)
        for name in ("bos_token", "eos_token", "pad_token", "mask_token")
        if getattr(tokenizer, name) is not None
    }
    others = [token for token in specials if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        **named,
        **({"extra_special_tokens": others} if others else {}),
        clean_up_tokenization_spaces=False,
        model_max_length=tokenizer.model_max_length,
        model_input_names=list(tokenizer.model_input_names),
        padding_side=tokenizer.padding_side,
        split_special_tokens=tokenizer.split_special_tokens,
    )
