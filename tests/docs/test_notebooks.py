"""The notebooks: committed without outputs, and executed here at tiny sizes, without a network."""

import json
import warnings
from pathlib import Path

import nbformat
import pytest
import sentencepiece
from nbclient import NotebookClient
from transformers import AutoTokenizer

from corpus.stories.generator import generate_stories
from storage.records import read_jsonl

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = ("openwebtext", "text_to_page", "tokenizers")
SIZES = {"STEPS": 12, "STORIES": 120, "VOCABULARY": 400, "WIDTH": 32, "LAYERS": 1, "TOKENS": 10, "GPT2": "", "PAGE": 0}
SECONDS = 120


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> nbformat.NotebookNode:
    """The notebook after a run of all its cells; what it writes goes to `folder`."""
    for key, value in SIZES.items():
        monkeypatch.setenv(f"NOTEBOOK_{key}", str(value))
    monkeypatch.setenv("NOTEBOOK_FOLDER", str(folder))
    for key, value in settings.items():
        monkeypatch.setenv(f"NOTEBOOK_{key}", value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.delenv("HF_REPO", raising=False)
    for key in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(key, raising=False)
    notebook = read(name)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    with warnings.catch_warnings():
        # Of Jupyter's own: how it finds its folders, and sockets it closes late.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(jupyter|nbclient|zmq|traitlets)")
        warnings.filterwarnings("ignore", category=ResourceWarning)
        client.execute()
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") == "stdout"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count or cell.metadata for cell in code)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_there_are_no_other_notebooks() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.slow  # the notebook in which a model is trained, exported and loaded
def test_from_text_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = execute("text_to_page", tmp_path, monkeypatch)

    run = json.loads((tmp_path / "stories" / "run.json").read_text())
    assert (run["status"], run["step"]) == ("finished", SIZES["STEPS"])
    losses = [line["train_loss"] for line in read_jsonl(tmp_path / "stories" / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert run["evaluation"]["bits_per_byte"] > run["floor_bits_per_byte"] > 0
    assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert pictures(notebook) == 2

    bundle = tmp_path / "bundle"
    assert {"README.md", "config.json", "model.safetensors", "modeling_scratchgpt.py"} <= {
        path.name for path in bundle.iterdir()
    }
    prompt = json.loads((bundle / "prompts.json").read_text())[0]
    written = (tmp_path / "written.txt").read_text(encoding="utf-8")
    assert written.startswith(prompt)
    assert len(written) > len(prompt)
    assert "ScratchGPTForCausalLM writes" in printed(notebook)

    wiki = tmp_path / "wiki"
    again = json.loads((wiki / "run.json").read_text())
    assert (again["status"], again["step"]) == ("finished", 5)
    assert "resuming from step 4" in (wiki / "train.log").read_text()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(wiki / "tokenizer" / "tokenizer.model"))
    line = (tmp_path / "wiki.txt").read_text(encoding="utf-8").splitlines()[0]
    assert pieces.decode(pieces.encode(line)) == line
    assert "7 heads of 4: q, k, v are 32 → 28, the output 28 → 32" in printed(notebook)


@pytest.mark.slow
def test_a_character_model_from_archives_to_a_chatbot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = execute("openwebtext", tmp_path, monkeypatch)
    run = tmp_path / "openwebtext"
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    vocabulary = (run / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert vocabulary[:2] == ["\\n", " "]
    assert vocabulary[-3:] == ["[UNK]", "<|endoftext|>", ""]
    shown = printed(notebook)
    assert "20 archives, of which the last 2 by name validate" in shown
    assert "Completion: My self Har" in shown
    assert len(shown.split("Completion: My self Har")[1].split("Prompt:")[0].strip()) > 1
    assert pictures(notebook) == 1


@pytest.mark.slow
def test_tokenizers_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(story.text for story in generate_stories(seed=0, count=120)), encoding="utf-8")
    notebook = execute("tokenizers", tmp_path, monkeypatch, TEXT=str(text))

    summary = json.loads((tmp_path / "tokenizers.json").read_text())
    assert set(summary) == {"bpe", "characters", "wordpiece", "sentencepiece"}
    assert {kind for kind, row in summary.items() if row["lossless"]} == {"bpe", "sentencepiece"}
    assert summary["bpe"]["vocabulary"] == SIZES["VOCABULARY"]
    assert summary["characters"]["bytes_per_token"] == pytest.approx(1.0, abs=0.05)
    assert all(row["bytes_per_token"] > 1.2 for kind, row in summary.items() if kind != "characters")
    assert all(0 < row["used"] <= 1 and row["unknown"] < 0.01 for row in summary.values())
    for name in ("tokenizers.png", "merges.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert pictures(notebook) == 2
    for kind, row in summary.items():
        assert len(AutoTokenizer.from_pretrained(tmp_path / "tokenizers" / kind)) == row["vocabulary"]
    shown = printed(notebook)
    assert "with    ['The', ' traveller', \"'s\"" in shown
    assert "without ['T', 'he'" in shown
    assert "<|mask|>" in shown
