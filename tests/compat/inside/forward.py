"""Checks: logits, loss and fields of a forward pass; a text read step by step; training; messages."""

import json
import shutil
from typing import Any

import torch
from harness import CAUSAL, EVERY, Bundle, cache_of, check, expect, expect_close, expect_error
from transformers import Cache, DynamicCache

UNKNOWN = (TypeError, ValueError)


@check("logits", *EVERY)
def logits(bundle: Bundle) -> None:
    """Logits are the reference's, in the default attention and in eager attention."""
    expect_close(bundle.model(bundle.tensors["input_ids"]).logits, bundle.tensors["logits"], "logits")
    eager = bundle.load(attn_implementation="eager")
    expect_close(eager(bundle.tensors["input_ids"]).logits, bundle.tensors["logits"], "logits of eager attention")


@check("logits", *EVERY)
def padded_logits(bundle: Bundle) -> None:
    """A padded batch gives what each text gives alone, in the default attention and in eager attention."""
    ids, mask = bundle.tensors["padded_ids"], bundle.tensors["padded_mask"]
    for model in (bundle.model, bundle.load(attn_implementation="eager")):
        got = model(ids, attention_mask=mask).logits
        expect_close(got[mask.bool()], bundle.tensors["padded_logits"], "logits beside padding")


@check("logits", *EVERY)
def loss(bundle: Bundle) -> None:
    """The loss of labels, and of shift_labels in their place, is the reference's."""
    ids, labels = bundle.tensors["input_ids"], bundle.tensors["labels"]
    found = bundle.model(ids, labels=labels).loss
    expect_close(found, bundle.tensors["loss"], "loss")
    if bundle.kind != "masked":
        shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
        expect_close(bundle.model(ids, shift_labels=shifted).loss, bundle.tensors["loss"], "loss of shift_labels")


@check("logits", *CAUSAL)
def last_logits(bundle: Bundle) -> None:
    """`logits_to_keep` as a number and as positions."""
    ids, expected = bundle.tensors["input_ids"], bundle.tensors["logits"]
    expect_close(bundle.model(ids, logits_to_keep=2).logits, expected[:, -2:], "the last two logits")
    places = torch.tensor([1, 5])
    expect_close(bundle.model(ids, logits_to_keep=places).logits, expected[:, places], "logits at two places")


@check("logits", *EVERY)
def embeddings(bundle: Bundle) -> None:
    """`inputs_embeds` in the place of ids."""
    embedded = bundle.model.get_input_embeddings()(bundle.tensors["input_ids"])
    expect_close(bundle.model(inputs_embeds=embedded).logits, bundle.tensors["logits"], "logits")


@check("logits", "modern")
def scaled_positions(bundle: Bundle) -> None:
    """A config.json with rotary positions scaled to a longer context, beyond that context, and saved again."""
    for rope_type, settings in bundle.facts["scaled"].items():
        folder = bundle.scratch / "scaled" / rope_type
        shutil.copytree(bundle.folder, folder)
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(written | settings), encoding="utf-8")
        model = bundle.load(folder)
        expected = bundle.tensors[f"scaled.{rope_type}"]
        expect_close(model(bundle.tensors["input_ids"]).logits, expected, f"logits of {rope_type}")
        model.save_pretrained(bundle.scratch / "scaled_again" / rope_type)
        again = bundle.load(bundle.scratch / "scaled_again" / rope_type)
        expect_close(again(bundle.tensors["input_ids"]).logits, expected, f"logits of {rope_type}, saved and loaded")


@check("logits", *EVERY)
def fields(bundle: Bundle) -> None:
    """Hidden states and attentions where they are asked for."""
    model = bundle.load(attn_implementation="eager")
    ids, layers = bundle.tensors["input_ids"], model.config.num_hidden_layers
    plain = bundle.model(ids)
    expect(plain.hidden_states is None and plain.attentions is None, "hidden states or attentions nobody asked for")
    outputs = model(ids, output_hidden_states=True, output_attentions=True)
    expect(len(outputs.hidden_states) == layers + 1, f"{len(outputs.hidden_states)} hidden states of {layers} blocks")
    expect(len(outputs.attentions) == layers, f"{len(outputs.attentions)} attentions of {layers} blocks")
    expect_close(outputs.hidden_states[0], bundle.tensors["hidden_first"], "the first hidden states")
    expect_close(outputs.hidden_states[-1], bundle.tensors["hidden"], "the last hidden states")
    for weights in outputs.attentions:
        expect_close(weights.sum(-1), torch.ones(weights.shape[:-1]), "sums of attention weights")


@check("logits", *EVERY)
def tuple_form(bundle: Bundle) -> None:
    """`return_dict=False` gives the fields in their order, as an argument and in the config."""
    ids, labels = bundle.tensors["input_ids"], bundle.tensors["labels"]
    found = bundle.model(ids, labels=labels, return_dict=False)
    expect(isinstance(found, tuple), f"expected a tuple, got {type(found).__name__}")
    expect_close(found[0], bundle.tensors["loss"], "loss")
    expect_close(found[1], bundle.tensors["logits"], "logits")
    if bundle.kind != "masked":
        found = bundle.model(ids, return_dict=False, use_cache=True)
        expect_close(found[0], bundle.tensors["logits"], "logits")
        expect(isinstance(found[1], Cache), f"expected the cache behind the logits, got {type(found[1]).__name__}")


@check("logits", *CAUSAL)
def cache_field(bundle: Bundle) -> None:
    """The cache stands under `past_key_values`, by attribute and by item; there is none without `use_cache`."""
    ids = bundle.tensors["input_ids"]
    outputs = bundle.model(ids, use_cache=True)
    found = cache_of(outputs)
    expect(outputs.past_key_values is found, "past_key_values is not the cache")
    expect(outputs["past_key_values"] is found, "['past_key_values'] is not the cache")
    expect(found.get_seq_length() == ids.shape[1], f"{found.get_seq_length()} cached tokens of {ids.shape[1]}")
    outputs = bundle.model(ids, use_cache=False)
    expect(not any(isinstance(value, Cache) for value in dict(outputs).values()), "a cache without use_cache")


def read_in_steps(bundle: Bundle, name: str, cache: Any = None) -> None:
    """A text read in pieces of several lengths, the cache given back under `name`, gives the reference's logits."""
    ids, expected = bundle.tensors["input_ids"], bundle.tensors["logits"]
    done = 0
    for length in (7, 1, 1, 3, 1, 5, 1):
        given = {} if cache is None else {name: cache}
        outputs = bundle.model(ids[:, done : done + length], use_cache=True, **given)
        expect_close(
            outputs.logits, expected[:, done : done + length], f"logits of tokens {done} to {done + length}", 3e-5
        )
        cache, done = cache_of(outputs), done + length


@check("step by step", *CAUSAL)
def steps_by_past_key_values(bundle: Bundle) -> None:
    """`forward(past_key_values=…)`."""
    read_in_steps(bundle, "past_key_values")
    read_in_steps(bundle, "past_key_values", DynamicCache(config=bundle.model.config))


@check("step by step", *CAUSAL)
def steps_by_cache(bundle: Bundle) -> None:
    """`forward(cache=…)`, the name of transformers 5.24."""
    read_in_steps(bundle, "cache")


@check("step by step", *CAUSAL)
def steps_by_another_name(bundle: Bundle) -> None:
    """A cache is taken by its type, whatever its name."""
    read_in_steps(bundle, "kv_state")


@check("step by step", *CAUSAL)
def base_steps(bundle: Bundle) -> None:
    """The model without its head, with a cache of either name."""
    ids, base = bundle.tensors["input_ids"], bundle.model.base_model
    for name in ("past_key_values", "cache"):
        first = base(ids[:, :7], use_cache=True)
        second = base(ids[:, 7:9], use_cache=True, **{name: cache_of(first)})
        expect_close(second.last_hidden_state, bundle.tensors["hidden"][:, 7:9], f"hidden states, {name}", 3e-5)


@check("messages", *EVERY)
def unknown_keyword(bundle: Bundle) -> None:
    """A keyword that the model would have to act on is an error with its name."""
    ids = bundle.tensors["input_ids"]
    expect_error(lambda: bundle.model(ids, past=((1, 2), (3, 4))), UNKNOWN, "past")
    expect_error(lambda: bundle.model(ids, kv_state=torch.zeros(2)), UNKNOWN, "kv_state")
    expect_error(lambda: bundle.model.base_model(ids, use_kache=True), UNKNOWN, "use_kache")


@check("messages", "classic")
def text_past_the_context(bundle: Bundle) -> None:
    """A text past learned positions is an error that names the setting: in a pass, cached and uncached generation."""
    context = bundle.model.config.max_position_embeddings
    long = bundle.tensors["input_ids"][:1].repeat(1, context)[:, : context + 1]
    expect_error(lambda: bundle.model(long), (ValueError,), "max_position_embeddings", str(context))
    options: dict[str, Any]
    for options in ({"use_cache": True}, {"use_cache": False}, {"cache_implementation": "static"}):
        call = bundle.generate
        expect_error(
            lambda call=call, options=options: call(long[:, : context - 4], max_new_tokens=9, **options),
            (ValueError,),
            "max_position_embeddings",
        )


@check("training", *EVERY)
def gradient_checkpointing(bundle: Bundle) -> None:
    """A training step with it gives the gradients of one without, in both of torch's ways."""
    ids, labels = bundle.tensors["input_ids"], bundle.tensors["labels"]
    expected = gradients(bundle.load(), ids, labels)
    for reentrant in (False, True):
        model = bundle.load()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        expect(model.is_gradient_checkpointing, "gradient checkpointing is not on")
        if reentrant:
            model.enable_input_require_grads()
        for name, gradient in gradients(model, ids, labels).items():
            expect_close(gradient, expected[name], f"gradient of {name}")


@check("training", *EVERY)
def training_step(bundle: Bundle) -> None:
    """One step of SGD ends at the reference's loss."""
    ids, labels = bundle.tensors["input_ids"], bundle.tensors["labels"]
    model = bundle.load()
    gradients(model, ids, labels)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    expect_close(model(ids, labels=labels).loss, bundle.tensors["loss_after_step"], "loss after a step", 1e-4)


def gradients(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a training pass, by the parameter's name."""
    model.train()
    model(ids, labels=labels).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}
