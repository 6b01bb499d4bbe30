"""Knowledge distillation (`--teacher`): what is learnt, resume, what is recorded, refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hub_export.card import render_card
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tests.train.test_loop import assert_same_run, resume_to_the_end
from tokenization import save_tokenizer
from tokenization.trainers import train_own
from train.__main__ import parse
from train.base.teacher import load_teacher
from train.config import Config
from train.data.batches import Batch
from train.loop import Trainer, train
from train.objective import ModelWithLoss, mean_loss


def test_a_run_with_a_teacher_resumes_bit_for_bit(
    tiny: Config, finished_run: Path, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_fields(tiny, data__teacher=str(finished_run))
    step = int(RunFolder(finished_run).checkpoint().name[5:])
    unbroken = train(with_fields(config, run__dir=fresh_run_dir("whole")), recipe="debug")
    broken = with_fields(config, run__dir=fresh_run_dir("broken"))
    resume_to_the_end(broken, [3, 9], monkeypatch)
    assert broken.run.dir is not None
    assert_same_run(unbroken, broken.run.dir)
    folder = RunFolder(unbroken)
    line = f"with the probabilities of {RunFolder(finished_run).checkpoint().resolve()}; the validation loss is that of"
    assert line in folder.log.read_text()
    card = render_card(folder.checkpoint("latest"), folder, folder.checkpoint("latest"), repo=None)
    assert f"| teacher (knowledge distillation) | `unbroken, step {step}` |" in card
    assert str(finished_run.parent) not in card


def test_the_teacher_is_neither_trained_nor_saved(tiny: Config, finished_run: Path, tmp_path: Path) -> None:
    config = with_fields(tiny, data__teacher=str(finished_run), run__dir=tmp_path / "new")
    trainer = Trainer(config, "debug", RunFolder(tmp_path / "new"), quiet=True)
    module, (teacher,) = trainer.model, trainer.model.teacher
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    saved = AutoModelForCausalLM.from_pretrained(RunFolder(finished_run).checkpoint()).state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in saved.items())
    assert not any("teacher" in name for name in module.state_dict())
    assert len(list(module.parameters())) == len(list(trainer.unwrapped.parameters()))
    trainer.run()
    assert not teacher.training
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in before.items())


def test_an_evaluation_is_of_the_text_alone(tiny: Config, finished_run: Path, tmp_path: Path) -> None:
    config = with_fields(tiny, data__teacher=str(finished_run), run__dir=tmp_path / "new")
    trainer = Trainer(config, "debug", RunFolder(tmp_path / "new"), quiet=True)
    taught, alone = trainer.model, ModelWithLoss(trainer.unwrapped)
    batch: Batch = trainer.validation[0]
    assert mean_loss(taught, [batch], torch.device("cpu")) == mean_loss(alone, [batch], torch.device("cpu"))
    torch.manual_seed(0)
    mixed = taught.train()(batch.input_BL, batch.target_BL).item()
    torch.manual_seed(0)
    assert mixed != alone.train()(batch.input_BL, batch.target_BL).item()


def test_what_cannot_teach_is_refused(tiny: Config, finished_run: Path, tmp_path: Path) -> None:
    def refused(message: str, **fields: object) -> None:
        with pytest.raises(ValueError, match=message):
            train(with_fields(tiny, run__dir=tmp_path / "refused", **fields), recipe="debug")
        assert not (tmp_path / "refused" / "recipe.json").exists()  # the corrected command begins anew

    refused("--teacher: expected it with --data.objective causal, got it with masked",
            data__teacher=str(finished_run), data__objective="masked", run__output_tokens=0)  # fmt: skip
    refused(f"--teacher {tmp_path}/nothing: there is no folder", data__teacher=str(tmp_path / "nothing"))
    other = tmp_path / "other"
    save_tokenizer(train_own(["The cat sat on the mat. " * 9], tiny.tokenizer.vocab_size), other)
    refused(f"--teacher {finished_run}: expected the vocabulary of the tokenizer in {other}, got another one; ",
            data__teacher=str(finished_run), tokenizer__path=other)  # fmt: skip
    length = tiny.model.max_position_embeddings
    longer = with_fields(tiny, data__teacher=str(finished_run), model__max_position_embeddings=2 * length)
    with pytest.raises(
        ValueError, match=rf"expected a context of at least the run's {2 * length} tokens, got {length}"
    ):
        load_teacher(longer)


def test_a_path_of_the_home_folder(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(finished_run.parent))
    _, config = parse(["modern", "--teacher", f"~/{finished_run.name}"])
    assert config.data.teacher == str(finished_run.resolve())
    _, config = parse(["modern", "--teacher", "alice/moons"])
    assert config.data.teacher == "alice/moons"
