"""Checks: generation with a cache gives the logits and the tokens of generation without one."""

import contextlib
import copy
import functools
import io
import re
from collections.abc import Callable
from typing import Any

import torch
from harness import CAUSAL, Bundle, cache_of, check, expect, expect_error, expect_same_text
from transformers import Cache, pipeline

SAMPLED = {"do_sample": True, "temperature": 1.3, "top_k": 50}


@check("greedy, sampled", *CAUSAL)
def greedy(bundle: Bundle) -> None:
    """Greedy decoding of two prompts, with a cache as without."""
    for number in range(2):
        expect_same_text(bundle.generate(bundle.prompt_ids(number), use_cache=True), bundle.uncached(number))


@check("greedy, sampled", *CAUSAL)
def uncached_is_the_forward_pass(bundle: Bundle) -> None:
    """What `generate` computes without a cache is what a pass over the whole text computes."""
    ids, logits = (found.clone() for found in bundle.uncached())
    length = bundle.prompt_ids().shape[1]
    expect_same_text((ids, bundle.model(ids[:, :-1]).logits[:, length - 1 :]), (ids, logits))
    logits[..., bundle.facts["special_ids"]["eos_token_id"]] = -torch.inf  # suppressed
    expect(logits.argmax(-1).tolist() == ids[:, length:].tolist(), "the tokens are not those of the largest logits")


@check("greedy, sampled", *CAUSAL)
def sampled(bundle: Bundle) -> None:
    """The same seed draws the same text with a cache as without."""
    torch.manual_seed(0)
    expect_same_text(bundle.generate(bundle.prompt_ids(), use_cache=True, **SAMPLED), bundle.uncached(**SAMPLED))


@check("greedy, sampled", *CAUSAL)
def continued(bundle: Bundle) -> None:
    """A second call goes on with the cache of the first."""
    count = bundle.new_tokens // 2
    ids = bundle.prompt_ids()
    settings = {"do_sample": False, "return_dict_in_generate": True, "attention_mask": torch.ones_like(ids)}
    first = bundle.model.generate(ids, max_new_tokens=count, **settings, **bundle.endless)
    got = bundle.generate(first.sequences, max_new_tokens=count, past_key_values=cache_of(first))
    ids, logits = bundle.uncached()
    expect_same_text(got, (ids[:, : got[0].shape[1]], logits[:, count : 2 * count]))


@check("static cache", *CAUSAL)
def static(bundle: Bundle) -> None:
    """A cache of a fixed size, greedy and sampled."""
    for options in ({}, SAMPLED):
        torch.manual_seed(0)
        got = bundle.generate(bundle.prompt_ids(), cache_implementation="static", **options)
        expect_same_text(got, bundle.uncached(**options))


@check("padded batch", *CAUSAL)
def left_padded(bundle: Bundle) -> None:
    """A left-padded batch of two gives each text as alone: with a dynamic cache, a static one, and none."""
    batch = bundle.tokenizer(bundle.prompts, padding=True, padding_side="left", return_tensors="pt")
    options: dict[str, Any]
    for options in ({"use_cache": True}, {"cache_implementation": "static"}, {"use_cache": False}):
        ids, logits = bundle.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options)
        for number in range(2):
            alone, expected = bundle.uncached(number)
            expect_same_text(
                (ids[number : number + 1, -alone.shape[1] :], logits[number : number + 1]), (alone, expected)
            )


@check("beams", *CAUSAL)
def beams(bundle: Bundle) -> None:
    """Beam search over four beams, alone and in a left-padded batch."""
    batch = bundle.tokenizer(bundle.prompts, padding=True, padding_side="left", return_tensors="pt")
    single = {"ids": bundle.prompt_ids()}
    double = {"ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    for given in (single, double):
        found = [bundle.generate(**given, num_beams=4, use_cache=use_cache)[0] for use_cache in (True, False)]
        expect(torch.equal(*found), f"expected the tokens {found[1].tolist()}, got {found[0].tolist()}")


@check("drafts", *CAUSAL)
def prompt_lookup(bundle: Bundle) -> None:
    """Drafts taken from the prompt leave the greedy text as it is."""
    ids = bundle.prompt_ids()
    repeated = torch.cat((ids, ids), dim=1)
    expected = bundle.generate(repeated, use_cache=False)
    expect_same_text(bundle.generate(repeated, prompt_lookup_num_tokens=3), expected)


@check("drafts", *CAUSAL)
def assistant(bundle: Bundle) -> None:
    """Drafts of an assistant, the same model and a worse one, leave the greedy text as it is."""
    worse = copy.deepcopy(bundle.model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in worse.parameters():
            weight += 0.05 * torch.randn_like(weight)
    for helper in (copy.deepcopy(bundle.model), worse):
        expect_same_text(bundle.generate(bundle.prompt_ids(), assistant_model=helper), bundle.uncached())


@check("pipeline", *CAUSAL)
def text_pipeline(bundle: Bundle) -> None:
    """The pipeline writes what `generate` writes without a cache."""
    write = pipeline("text-generation", model=str(bundle.folder), trust_remote_code=True, device="cpu")
    got = write(bundle.prompts[0], max_new_tokens=bundle.new_tokens, do_sample=False, **bundle.endless)
    expected = bundle.tokenizer.decode(bundle.uncached()[0][0], skip_special_tokens=True)
    expect(got[0]["generated_text"] == expected, f"expected {expected!r}, got {got[0]['generated_text']!r}")


@check("pipeline", "masked")
def mask_pipeline(bundle: Bundle) -> None:
    """The pipeline fills a blank with the tokens of the reference's largest logits."""
    fill = pipeline("fill-mask", model=str(bundle.folder), trust_remote_code=True, device="cpu")
    found = [guess["token"] for guess in fill(bundle.facts["blank"], top_k=3)]
    expect(found == bundle.facts["filled"], f"expected the ids {bundle.facts['filled']}, got {found}")


@check("pipeline", *CAUSAL, "masked")
def model_card(bundle: Bundle) -> None:
    """The programs of README.md run, and the model that they load draws the same with a cache as without."""
    card = (bundle.folder / "README.md").read_text(encoding="utf-8")
    repo = re.search(r'from_pretrained\("([^"]+)"', card)
    programs = re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
    expect(repo and len(programs) >= 3, f"expected three programs in README.md, found {len(programs)}")
    names: dict[str, Any] = {}
    printed = io.StringIO()
    for program in programs:
        with contextlib.redirect_stdout(printed):
            exec(program.replace(repo[1] if repo else "", str(bundle.folder)), names)
    if bundle.kind == "masked":
        expect(names["logits"].shape[-1] == names["model"].config.vocab_size, "the card's program gave no logits")
        return
    start = bundle.tokenizer.decode(names["inputs"]["input_ids"][0], skip_special_tokens=True)
    lines = [line for line in printed.getvalue().splitlines() if line.startswith(start)]
    expect(len(lines) == 2, f"expected two texts that begin with {start!r}, got {printed.getvalue()!r}")
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        settings = {"max_new_tokens": 32, "do_sample": True, "use_cache": use_cache}
        texts.append(names["model"].generate(**names["inputs"], **settings))
    expect(torch.equal(*texts), f"expected the tokens {texts[1].tolist()}, got {texts[0].tolist()}")


def with_forward(bundle: Bundle, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A model whose forward gets its keywords through `change`, as a transformers to come might give them."""
    model = copy.deepcopy(bundle.model)
    forward = model.forward

    @functools.wraps(forward)
    def changed(*arguments: Any, **keywords: Any) -> Any:
        return forward(*arguments, **change(keywords))

    model.forward = changed
    return model


@check("next rename", *CAUSAL)
def renamed_cache(bundle: Bundle) -> None:
    """Generation stays right where the cache comes under a name that nobody knows yet."""
    seen = []

    def rename(keywords: dict[str, Any]) -> dict[str, Any]:
        seen.extend(name for name, value in keywords.items() if isinstance(value, Cache))
        return {("kv_state" if isinstance(value, Cache) else name): value for name, value in keywords.items()}

    model = with_forward(bundle, rename)
    expect_same_text(bundle.generate(bundle.prompt_ids(), model), bundle.uncached())
    expect(len(seen) >= bundle.new_tokens - 1, f"the renamed cache was given {len(seen)} times")


@check("next rename", *CAUSAL)
def lost_cache(bundle: Bundle) -> None:
    """A cache that does not arrive at all is an error that says so, alone and in a left-padded batch."""

    def drop(keywords: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in keywords.items() if not isinstance(value, Cache)}

    model = with_forward(bundle, drop)
    expect_error(lambda: bundle.generate(bundle.prompt_ids(), model), (ValueError,), "cache")
    batch = bundle.tokenizer(bundle.prompts, padding=True, padding_side="left", return_tensors="pt")
    call = functools.partial(bundle.generate, batch["input_ids"], model, attention_mask=batch["attention_mask"])
    expect_error(call, (ValueError,), "cache")
