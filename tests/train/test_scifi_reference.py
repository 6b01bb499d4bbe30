"""The plain re-implementation of the science-fiction tutorial beside which the recipe is measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import scifi_reference
from benchmarks.scifi_reference import Reference, as_table, compare, train_reference
from modeling import ScratchGPTForCausalLM
from storage.run_folder import RunFolder
from train.data.batches import Batch
from train.recipes import get_recipe

VOCABULARY = 300


def reference_with_weights_of(model: Any) -> Reference:
    """The reference whose parameters are those of a ScratchGPT model."""
    reference = Reference(VOCABULARY)
    names = {
        "tokens": model.model.embed_tokens, "positions": model.model.embed_positions, "norm": model.model.norm,
        "output": model.lm_head,
    }  # fmt: skip
    for index, block in enumerate(model.model.layers):
        parts = {"norm1": block.input_layernorm, "norm2": block.post_attention_layernorm}
        parts |= {"projection": block.self_attn.o_proj}
        parts |= {"feed_forward.0": block.mlp.up_proj, "feed_forward.2": block.mlp.down_proj}
        names |= {f"blocks.{index}.{name}": part for name, part in parts.items()}
    state = {f"{name}.{key}": value for name, part in names.items() for key, value in part.state_dict().items()}
    for index, block in enumerate(model.model.layers):
        attention = block.self_attn
        together = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        state[f"blocks.{index}.queries_keys_values.weight"] = together
    reference.load_state_dict(state)
    return reference


def test_it_is_the_recipes_model_but_for_the_scale_of_the_scores() -> None:
    torch.manual_seed(0)
    recipe = get_recipe("scifi")
    model: Any = ScratchGPTForCausalLM(recipe.model.build(vocab_size=VOCABULARY, end_of_text=0)).eval()
    reference = reference_with_weights_of(model).eval()
    window = torch.randint(0, VOCABULARY, (2, 33))
    batch = Batch(window[:, :-1].contiguous(), window[:, 1:].contiguous())
    with torch.no_grad():
        as_it_is = model(batch.input_BL, shift_labels=batch.target_BL).loss
        for block in model.model.layers:
            block.self_attn.scaling = 256**-0.5
        ours, theirs = model(batch.input_BL, shift_labels=batch.target_BL).loss, reference(batch)
    torch.testing.assert_close(ours, theirs)
    assert as_it_is != ours
    assert sum(parameter.numel() for parameter in reference.parameters()) == model.num_parameters()
    assert recipe.model.residual_dropout == recipe.model.attention_dropout == scifi_reference.DROPOUT


def test_it_trains_resumes_and_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small enough for a test; the second run begins at the step where the first one ended."""
    for name, value in {"WIDTH": 24, "LAYERS": 1, "CONTEXT": 32, "SAVE_EVERY": 2, "SHOWN_STEPS": (2, 4)}.items():
        monkeypatch.setattr(scifi_reference, name, value)
    (tmp_path / "84.txt").write_text("The sun rose over the hills, and nobody was there to see it. " * 900)
    fields = {"corpus.books": "any", "tokenizer.vocab_size": VOCABULARY, "data.evaluation_windows": 4}
    fields |= {"run.evaluate_every": 2}
    plain = scifi_reference.recipe
    monkeypatch.setattr(scifi_reference, "recipe", lambda *given: scifi_reference.replace_fields(plain(*given), fields))
    folder = RunFolder(tmp_path / "reference")
    for steps in (2, 4):
        train_reference(tmp_path / "84.txt", folder, steps, 4)
    records = folder.metrics()
    assert [record["step"] for record in records] == [2, 4]
    assert records[1]["validation_loss"] < records[0]["validation_loss"]
    losses = compare(tmp_path)
    (tmp_path / "ours").mkdir()
    RunFolder(tmp_path / "ours").append_metrics({"step": 4, "validation_loss": losses[4]["reference"] + 0.5})
    table = as_table(compare(tmp_path)).splitlines()
    assert table[2] == f"| 2 | {losses[2]['reference']} |  |  |"
    assert table[3].endswith("| +0.500 |")
