"""The bundles that are checked: three tiny models, trained and exported by the project's own commands.

Their weights start large and stay so, since a weak model hides faults: its greedy tokens can be right where its logits
are not.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from storage.files import atomic_folder
from tests.compat.environments import variables_for
from tests.compat.versions import ROOT

STRONG = ("--model.initializer-range", "0.3", "--model.output-projection-init", "normal", "--steps", "3")
KINDS: dict[str, tuple[str, ...]] = {
    "modern": ("--model.num-key-value-heads", "1"),
    "classic": (
        *("--model.norm", "layernorm", "--model.position-embedding", "learned", "--model.hidden-act", "relu"),
        *("--model.no-gated-mlp", "--model.no-qk-norm", "--model.no-tie-word-embeddings", "--model.mlp-bias"),
        *("--model.attention-output-bias", "--model.lm-head-bias", "--model.head-dim", "13"),
    ),
    "masked": ("--data.objective", "masked"),
}
"""What each kind of bundle changes in the debug recipe, which is of the modern family."""
KEPT = 4
"""Earlier bundles that are not removed: another run may be using them."""
SOURCES = ("corpus", "modeling", "tokenization", "train", "hub_export")
HERE = Path(__file__).parent
REMOTE = (
    "modeling/configuration_scratchgpt.py",
    "modeling/modeling_scratchgpt.py",
    "tokenization/tokenization_scratchgpt.py",
)
"""The project's files that are copied into every bundle."""
PUBLISHED = ("*.py", "config.json", "generation_config.json", "tokenizer*.json", "slow/*")
"""Files of a bundle that the checks depend on, besides its weights and the programs of its card."""


def make_bundles(cache: Path) -> list[Path]:
    """The three bundles, each with what the checks compare with beside it; made where those of this code are not there.

    Raises:
        OSError: a command of the project failed; the message has the end of what it wrote.
    """
    sources = [path for name in SOURCES for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".md", ".jinja")]
    key = digest([*sources, HERE / "bundles.py", HERE / "reference.py"], ROOT)
    folder = cache / f"bundles-{key}"
    if not folder.exists():
        for old in sorted(cache.glob("bundles-*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old)
        with atomic_folder(folder) as made:
            for kind, flags in KINDS.items():
                _make(made, kind, flags)
            shutil.rmtree(made / "runs")
            shutil.rmtree(made / "hf_home", ignore_errors=True)
    return [folder / kind for kind in KINDS]


def bundles_key(bundles: Iterable[Path]) -> str:
    """A hash over what the results for a version depend on: the files that a user publishes, and the checks."""
    bundles = list(bundles)
    published = [path for folder in bundles for pattern in PUBLISHED for path in folder.glob(pattern) if path.is_file()]
    programs = [
        program
        for folder in bundles
        for program in re.findall(r"```python\n.*?```", (folder / "README.md").read_text("utf-8"), flags=re.DOTALL)
    ]
    checks = [*(HERE / "inside").glob("*.py"), HERE / "reference.py"]
    parts = [digest(published, bundles[0].parent), json.dumps(programs), digest(checks, HERE), sys.version]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def code_key() -> str:
    """A hash over the files that are published with every model."""
    return digest([ROOT / name for name in REMOTE], ROOT)


def digest(files: Iterable[Path], root: Path) -> str:
    """A short hash over the names below `root` and the contents of files."""
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(f"{path.relative_to(root).as_posix()}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def _make(folder: Path, kind: str, flags: tuple[str, ...]) -> None:
    run = folder / "runs" / kind
    _run(folder, "-m", "train", "debug", "--run-dir", str(run), *STRONG, *flags)
    _run(folder, "-m", "hub_export", "bundle", str(run), "--out", str(folder / kind))
    _run(folder, "-m", "tests.compat.reference", str(folder / kind))


def _run(scratch: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=variables_for(scratch),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"python {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-800:]}")
