"""Training and loading with other people's tools: Trainer, PEFT, accelerate, device_map, half precision, export."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from tests.modeling.families import GROUPED as MODERN

VOCABULARY, LENGTH = 37, 12
FAMILIES = {"classic": {}, "modern": MODERN}
every_family = pytest.mark.parametrize("family", FAMILIES)
quiet = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def build(family: str, model_class: Any = ScratchGPTForCausalLM, **fields: Any) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return model_class(ScratchGPTConfig(**shape | {"max_position_embeddings": 32} | FAMILIES[family] | fields))


def draw_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def rows(count: int) -> Any:
    """Texts that count upwards; every other one has half of its labels left out, so that counting tokens matters."""
    made = []
    for index in range(count):
        ids_L = (torch.arange(LENGTH) + 5 * index) % VOCABULARY
        labels_L = ids_L.clone()
        labels_L[: LENGTH // 2 * (index % 2)] = -100
        made.append({"input_ids": ids_L, "labels": labels_L})
    return made


class Curve(TrainerCallback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def trainer_curve(model: Any, folder: Path, **options: Any) -> list[float]:
    """The losses of six steps of 8 texts."""
    curve = Curve()
    arguments: dict[str, Any] = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "seed": 3}
    arguments |= {"logging_steps": 1, "report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    arguments |= {"dataloader_pin_memory": False}
    training = TrainingArguments(output_dir=str(folder), **arguments | options)
    Trainer(model=model, args=training, train_dataset=rows(48), callbacks=[curve]).train()
    return curve.losses


@quiet
@every_family
def test_the_trainer_with_accumulation_and_checkpointing_has_the_same_curve(family, tmp_path):
    plain = trainer_curve(build(family), tmp_path)
    assert plain[-1] < plain[0]
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    accumulated = trainer_curve(build(family), tmp_path, **options)
    checkpointed = trainer_curve(build(family), tmp_path, gradient_checkpointing=True, **options)
    assert accumulated == pytest.approx(plain, rel=1e-4)
    assert checkpointed == pytest.approx(accumulated, rel=1e-6)


@quiet
def test_a_trainer_saves_a_folder_that_loads(tmp_path):
    model = build("modern")
    training = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, save_steps=1, report_to="none", use_cpu=True, disable_tqdm=True
    )
    Trainer(model=model, args=training, train_dataset=rows(8)).train()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
    with torch.no_grad():
        assert torch.equal(again(draw_ids(1, 9)).logits, model.eval()(draw_ids(1, 9)).logits)


def adapted(model: Any, target_modules: Any) -> Any:
    """A PEFT model whose adapters do something from the start."""
    peft = pytest.importorskip("peft", reason="needs peft")
    torch.manual_seed(1)
    task = "CAUSAL_LM" if isinstance(model, ScratchGPTForCausalLM) else None
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type=task, target_modules=target_modules)
    return peft.get_peft_model(model, config)


@quiet
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_an_adapter_on_the_output_layer_learns(tied, objective):
    model_class = {"causal": ScratchGPTForCausalLM, "masked": ScratchGPTForMaskedLM}[objective]
    model = adapted(build("classic", model_class, tie_word_embeddings=tied), target_modules=["lm_head"]).eval()
    ids_BL = draw_ids(2, LENGTH)
    model.get_base_model()(ids_BL, labels=ids_BL).loss.backward()
    found = [parameter.grad for name, parameter in model.named_parameters() if "lora" in name]
    assert len(found) == 2
    assert all(gradient.abs().sum() > 0 for gradient in found)


@quiet
@every_family
def test_lora_trains_only_adapters_and_merges_into_a_plain_model(family, tmp_path):
    original, ids_BL = build(family), draw_ids(2, LENGTH)
    model = adapted(copy.deepcopy(original), target_modules="all-linear")
    names = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, _ in model.named_parameters() if ".lora_" in name}
    assert names >= {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    losses = trainer_curve(model, tmp_path)
    assert losses[-1] < losses[0]
    frozen = {name.replace(".base_layer", ""): kept for name, kept in model.get_base_model().named_parameters()}
    for name, weight in original.named_parameters():
        assert torch.equal(frozen[name], weight), name
    model.eval()
    with torch.no_grad():
        expected_BLV = model(input_ids=ids_BL).logits
        model.save_pretrained(tmp_path / "adapter")
        model.merge_and_unload().save_pretrained(tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        assert type(merged) is ScratchGPTForCausalLM
        torch.testing.assert_close(merged(ids_BL).logits, expected_BLV, atol=1e-5, rtol=1e-4)
        from peft import PeftModel

        reloaded = PeftModel.from_pretrained(copy.deepcopy(original), str(tmp_path / "adapter")).eval()
        torch.testing.assert_close(reloaded(input_ids=ids_BL).logits, expected_BLV)


@every_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_in_half_precision(family, dtype, tmp_path):
    model, ids_BL = build(family, initializer_range=0.1).eval(), draw_ids(2, LENGTH)
    model.save_pretrained(tmp_path)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    with torch.no_grad():
        expected_BLV, got_BLV = model(ids_BL).logits, half(ids_BL).logits
    assert (got_BLV - expected_BLV).std() < (0.02 if dtype == torch.bfloat16 else 0.003) * expected_BLV.std()
    half.save_pretrained(tmp_path / "half")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert again.dtype == dtype
    assert torch.equal(again(ids_BL).logits, half(ids_BL).logits)


@quiet
@every_family
@pytest.mark.parametrize("device_map", ["auto", "cpu", "disk"])
def test_a_device_map(family, device_map, tmp_path):
    model, ids_BL = build(family).eval(), draw_ids(2, LENGTH)
    model.save_pretrained(tmp_path)
    options: dict[str, Any] = {"device_map": device_map}
    if device_map == "disk":
        parts = ["lm_head", *(f"model.{name}" for name, _ in model.model.named_children() if name != "layers")]
        places = dict.fromkeys([*parts, "model.layers.0"], "cpu") | {"model.layers.1": "disk"}
        options = {"device_map": places, "offload_folder": str(tmp_path / "offload")}
    placed = AutoModelForCausalLM.from_pretrained(tmp_path, **options)
    with torch.no_grad():
        assert torch.equal(placed(ids_BL).logits, model(ids_BL).logits)
        loss = placed(ids_BL, labels=ids_BL).loss
        torch.testing.assert_close(loss, model(ids_BL, labels=ids_BL).loss)


@quiet
@every_family
def test_torch_export(family):
    """One graph for any batch and length, with the same logits."""
    model = build(family).eval()
    model.config.use_cache = False
    length = torch.export.Dim("length", min=2, max=32)
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(
        model, (draw_ids(2, 7),), dynamic_shapes={"input_ids": {0: batch, 1: length}}, strict=False
    )
    for shape in ((2, 7), (1, 3), (5, 32)):
        with torch.no_grad():
            expected = model(draw_ids(*shape)).logits
        torch.testing.assert_close(program.module()(draw_ids(*shape)).logits, expected)
