"""transformers' own tests, from the source distribution of the installed version.

They are fetched with pip into a folder that git ignores, and never become part of this project. The distribution holds
the common test mixins but not the packages that they import beside them (`generation/`, `exporters/`, `utils/`); for
those, `install_stand_ins` puts empty mixins and a table of config values of our own in their place.
"""

import importlib.metadata
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

from transformers.models.auto import modeling_auto

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".hf_suite"
PACKAGE = "transformers_tests"
SAMPLE = "A lighthouse keeper counts the ships.\n\nShe writes each name down; the book is almost full.\n"


def version() -> str:
    """The installed version of transformers, whose tests these are."""
    return importlib.metadata.version("transformers")


def fetch() -> Path:
    """The folder that holds the package `transformers_tests`; downloaded when it is not there.

    Raises:
        OSError: the download fails, or the distribution holds no tests.
    """
    folder = CACHE / f"transformers-{version()}"
    if folder.exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", "transformers", "--dest", scratch, f"transformers=={version()}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise OSError(f"pip cannot fetch the source distribution of transformers {version()}: {done.stderr[-500:]}")
        made = Path(scratch) / "made"
        unpack(archives[0], made / PACKAGE)
        made.rename(folder)
    return folder


def unpack(archive: Path, package: Path) -> None:
    """Unpack the archive's `tests/*.py` as a package, with the empty files that imports need and a sample text."""
    package.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                content = tar.extractfile(member)
                assert content is not None
                (package / parts[2]).write_bytes(content.read())
    if not any(package.iterdir()):
        raise OSError(f"{archive.name} holds no tests")
    (package / "__init__.py").touch()
    (package / "fixtures").mkdir()
    (package / "fixtures" / "sample_text.txt").write_text(SAMPLE, encoding="utf-8")


def install_stand_ins() -> None:
    """Make the package importable, with stand-ins for what the source distribution lacks.

    The tests tell a base model from a head by transformers' lists of names; ours join those lists.
    """
    sys.path.insert(0, str(fetch()))
    _module("exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    _module("generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    _module("utils.test_configuration_utils", config_common_kwargs=dict(CONFIG_VALUES))
    lists: Any = modeling_auto
    lists.MODEL_MAPPING_NAMES["scratchgpt"] = "ScratchGPTModel"
    lists.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["scratchgpt"] = "ScratchGPTForCausalLM"
    lists.MODEL_FOR_MASKED_LM_MAPPING_NAMES["scratchgpt"] = "ScratchGPTForMaskedLM"


CONFIG_VALUES: dict[str, Any] = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 3,
    "architectures": ["SomeModel"],
    "id2label": {0: "one"},
    "label2id": {"one": 0},
    "problem_type": "regression",
    "bos_token_id": 6,
    "pad_token_id": 7,
    "eos_token_id": 8,
    "tie_word_embeddings": False,
}
"""Fields that every config takes, with values that are not the defaults."""


def _module(name: str, **content: Any) -> None:
    parent, _, _ = name.rpartition(".")
    for full, values in ((parent, {}), (name, content)):
        module = types.ModuleType(f"{PACKAGE}.{full}")
        module.__dict__.update(values)
        if not values:
            module.__path__ = []
        sys.modules[module.__name__] = module
