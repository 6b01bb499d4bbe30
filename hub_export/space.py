"""The folder of a Hugging Face Space: the page, what it imports, what it needs, and which model it writes with."""

import ast
import functools
import logging
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from hub_export import card
from hub_export.exports.common import check_free
from modeling.loading import is_masked_lm
from storage.files import atomic_folder
from storage.model_card import card_title, read_card
from storage.records import write_json

ROOT = Path(__file__).parents[1]
ENTRY = "app.py"
FOLDERS = ("panels", "modeling", "tokenization", "corpus", "storage")  # where the page's own code lies
PREINSTALLED = {"gradio", "huggingface_hub", "spaces"}  # by the Space itself, gradio as the front matter says
PIN = "model.json"  # what the page reads to know its model
PYTHON = "3.12.12"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # a tenth of the size of those for CUDA
DESCRIPTION_LENGTH = 60  # characters that the Hub allows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """A machine that a Space runs on."""

    name: str  # the Hub's name of it
    torch: str | None  # the torch that it needs; None: the one that is installed here
    wheels: str | None  # where else pip looks for torch


HARDWARE = {
    "zero": Hardware(name="zero-a10g", torch="2.11.0", wheels=None),  # the newest torch on ZeroGPU's list
    "cpu-basic": Hardware(name="cpu-basic", torch=None, wheels=CPU_WHEELS),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """A model on the Hub at one commit."""

    repo: str  # user/name
    revision: str  # the commit, 40 hexadecimal digits


def make_space(bundle: Path, out: Path, *, pin: Pin | None = None, hardware: str = "zero", force: bool = False) -> Path:
    """Makes a Space's folder, complete: it starts anywhere with `pip install -r requirements.txt` and gradio.

    Args:
        bundle: the model, which the card describes.
        out: the folder to make.
        pin: the model on the Hub that the page loads; None (default) puts a copy of the bundle into the Space.
        hardware: `zero` (default; the free ZeroGPU) or `cpu-basic`.
        force: whether a Space that exists under this name is replaced (default: no).

    Raises:
        ValueError: an unknown hardware, or a name that is not free.
        OSError: the folder cannot be written.
    """
    if hardware not in HARDWARE:
        raise ValueError(f"--hardware: expected one of {', '.join(HARDWARE)}, got {hardware!r}")
    check_space_target(out, force)
    with atomic_folder(out, replace=force) as folder:
        for path in page_files():
            place = folder / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        (folder / "requirements.txt").write_text(requirements(hardware), encoding="utf-8", newline="\n")
        if pin is None:
            shutil.copytree(bundle, folder / "bundle", ignore=shutil.ignore_patterns(".*", "__pycache__"))
        else:
            write_json(folder / PIN, {"repo": pin.repo, "revision": pin.revision})
        (folder / "README.md").write_text(_card(bundle, pin, hardware), encoding="utf-8", newline="\n")
    return out


def check_space_target(out: Path, force: bool) -> None:
    """Refuse a name that is not free, unless a Space is there and may be replaced.

    Raises:
        ValueError: saying what is there.
    """
    is_space = (out / "panels" / "page.py").is_file() and not (out / "hub_export").exists()
    check_free(out, force, is_ours=is_space, kind="Space")


def page_files() -> list[Path]:
    """The files of this project that the page needs: what app.py imports, directly or not, and what lies beside."""
    found: set[Path] = set()
    waiting = [ROOT / ENTRY]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for module in _imports(path):
            waiting += [place for place in _places(module) if place not in found]
    assets = [path for path in (ROOT / "panels").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    return sorted(found | set(assets))


def requirements(hardware: str) -> str:
    """The text of a Space's requirements.txt: the libraries that the page imports, as they are installed here.

    gradio is the version that the card names. huggingface_hub is pinned too, though a Space has one: together with
    transformers and tokenizers it is what was run here. Where the installation is not the one of requirements.lock, the
    text and the log say so in one line.
    """
    chosen = HARDWARE[hardware]
    needed = {module.split(".")[0] for path in page_files() if path.suffix == ".py" for module in _imports(path)}
    needed -= PREINSTALLED | set(FOLDERS) | set(sys.stdlib_module_names)
    needed |= {"huggingface_hub", "safetensors", "tokenizers"}
    versions = {name: version(name).split("+")[0] for name in map(_distribution, needed)}
    lines = []
    if other := _not_locked(versions | {"gradio": version("gradio")}):
        lines.append(f"# not the versions that were tested together (requirements.lock): {', '.join(other)}")
        logger.warning("the Space gets %s", lines[0].removeprefix("# "))
    if chosen.torch:
        versions["torch"] = chosen.torch
    if chosen.wheels:
        lines.append(f"--extra-index-url {chosen.wheels}")
    return "\n".join([*lines, *(f"{name}=={versions[name]}" for name in sorted(versions)), ""])


def _distribution(module: str) -> str:
    """The name by which pip knows a module: `markdown-it-py` of `markdown_it`."""
    try:
        version(module)
    except PackageNotFoundError:
        return _packages()[module][0]
    return module


_packages = functools.cache(packages_distributions)  # it reads what all installed packages say: seconds


def _not_locked(versions: dict[str, str]) -> list[str]:
    """Which of these versions are not those of the lock files, with both: `numpy 2.5.0 instead of 2.4.6`."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("requirements*.lock")))
    locked: dict[str, list[str]] = {}
    for name, number in re.findall(r"^([\w.-]+)==([^\s;]+)", text, flags=re.MULTILINE):
        locked.setdefault(name, []).append(number)
    found = ((name, versions[name], locked.get(name.replace("_", "-").lower(), [])) for name in sorted(versions))
    return [
        f"{name} {here} instead of {' or '.join(there) or 'none'}" for name, here, there in found if here not in there
    ]


def _card(bundle: Path, pin: Pin | None, hardware: str) -> str:
    import yaml

    data, body = read_card(bundle)
    title = pin.repo.split("/")[-1] if pin else card_title(body) or "scratchgpt"
    does = "fills blanks" if is_masked_lm(bundle) else "writes"
    description = f"A small language model, trained from scratch, that {does}"
    assert len(description) <= DESCRIPTION_LENGTH, description
    front_matter = {
        "title": title,
        "emoji": "✍️",
        "colorFrom": "indigo",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": PYTHON,
        "app_file": ENTRY,
        "short_description": description,
        "models": [pin.repo] if pin else None,
        "tags": ["scratchgpt", str(data.get("pipeline_tag", "text-generation"))],
        "license": data.get("license"),
        "pinned": False,
        "suggested_hardware": HARDWARE[hardware].name,
        "preload_from_hub": [f"{pin.repo} {','.join(_loaded_files(bundle))} {pin.revision}"] if pin else None,
    }
    shown = {key: value for key, value in front_matter.items() if value is not None}
    return card.render(
        "space_card.md.jinja",
        front_matter=yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=1000).strip(),
        title=title,
        pin=pin,
        hardware=hardware,
        gradio=version("gradio"),
    )


def _loaded_files(bundle: Path) -> list[str]:
    """What the page fetches of a model, for the Space to have it before it starts."""
    wanted = (".json", ".safetensors", ".txt", ".model")
    names = sorted(path.name for path in bundle.iterdir() if path.suffix in wanted)
    return [*names, "README.md", *sorted(f"slow/{path.name}" for path in (bundle / "slow").glob("*"))]


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    """Modules that a file imports, absolute, also those inside functions."""
    package = path.relative_to(ROOT).parent.parts
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            modules += (module, *(f"{module}.{alias.name}" for alias in node.names))
    return tuple(modules)


@functools.cache
def _places(module: str) -> tuple[Path, ...]:
    """The file of a module of ours, and the `__init__.py` of each package on the way to it."""
    parts = module.split(".")
    if parts[0] not in FOLDERS:
        return ()
    packages = (ROOT.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1))
    return tuple(path for path in (*packages, ROOT.joinpath(*parts).with_suffix(".py")) if path.is_file())
