"""EleutherAI's lm_eval on a bundle, as docs/evaluate.md says: the number of `train.evaluate`, to four digits."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from modeling.loading import load_causal_lm
from tokenization import load_tokenizer
from train.text_loss import evaluate_text

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "pretrained" / "scifi"
SENTENCE = "The Martians came down to the harbour, and nobody in the city would believe it. "
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has lm_eval beside the packages here."""
    folder = tmp_path_factory.mktemp("judge")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib"))
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "lm_eval"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"lm_eval cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


def bits_per_byte(judge: Path, folder: Path, texts: list[str]) -> float:
    """What lm_eval says of these texts, in a folder of their own."""
    folder.mkdir()
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = [judge, "-m", "lm_eval", "--model", "hf", "--tasks", "own_text", "--device", "cpu"]
    command += ["--model_args", f"pretrained={BUNDLE},trust_remote_code=True,dtype=float32"]
    command += ["--include_path", ROOT / "docs" / "lm_eval", "--output_path", "out"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = folder.glob("out/**/results_*.json")
    return json.loads(results.read_text())["results"]["own_text"]["bits_per_byte,none"]


def test_it_gives_the_number_of_our_own_evaluation(judge: Path, tmp_path: Path) -> None:
    short = [f"{index}. {SENTENCE * (1 + index % 3)}" for index in range(6)]
    long = [SENTENCE * 40]
    model, tokenizer = load_causal_lm(BUNDLE), load_tokenizer(BUNDLE)
    own = {"short": evaluate_text(model, tokenizer, short), "long": evaluate_text(model, tokenizer, long)}
    assert own["long"]["tokens"] > 2 * model.config.max_position_embeddings
    assert bits_per_byte(judge, tmp_path / "short", short) == pytest.approx(own["short"]["bits_per_byte"], abs=5e-5)
    # Its windows do not overlap: what stands at the beginning of one is predicted from nothing.
    assert bits_per_byte(judge, tmp_path / "long", long) > own["long"]["bits_per_byte"] + 1e-3
    shutil.rmtree(judge.parents[1])
