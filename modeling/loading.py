"""Model folders: finding them (a bundle, a checkpoint, a run folder or a Hub id), their facts, and loading them.

Everything but loading reads small files only and imports neither torch nor transformers.
"""

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling import quick_imports, register
from modeling.stored.sizes import check_parameters, check_sizes
from storage.checksums import check_folder, damaged_files, describe_damage, file_stamps
from storage.files import as_path
from storage.records import is_json_object, read_json_object, read_json_object_or_empty
from storage.run_folder import RunFolder
from storage.text import first_line

logger = logging.getLogger(__name__)

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", "slow/*")
HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")
MASKED_HEADS = ("ForMaskedLM",)
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Where transformers keeps a chat template that is not in tokenizer_config.json."""
CHECK_RECORD = "proof.json"
"""Written into a bundle by `python -m hub_export`: among other things, the transformers that it was checked with."""
LOADED_ENDINGS = (".safetensors", ".model", ".txt", ".json")
"""Of the files of a model folder that loading depends on."""
VOCABULARIES = ("tokenizer.json", "vocab.json")
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
"""What configs call the context length; the first one that a config has counts."""


def find_folder(source: str | Path) -> Path | None:
    """The folder that holds `source`'s config.json: itself, or a run's best checkpoint. None for a Hub id, behind
    which `@` and a revision may follow.

    Raises:
        ValueError: for a path that is missing, that no file system can have, or that holds no model.
    """
    path = as_path(source, "a bundle, a checkpoint, a run folder or a Hub id")
    if path.is_dir():
        run = RunFolder(path)
        return _with_config(run.checkpoint() if run.has_state else path)
    if path.exists():
        raise ValueError(f"{source} is a file: expected a folder (a bundle, a checkpoint or a run) or a Hub id")
    if split_hub_id(source) is None:
        raise ValueError(f"there is no folder {source}: expected a bundle, a checkpoint, a run folder or a Hub id")
    return None


def split_hub_id(source: str | Path) -> tuple[str, str | None] | None:
    """The repository and the revision of `user/name@revision`; None for what must be a path: something is there, or in
    a folder of the user's name."""
    found = HUB_ID.fullmatch(str(source))
    repo = found["repo"] if found else ""
    if not found or Path(source).expanduser().exists() or ("/" in repo and Path(repo.split("/")[0]).is_dir()):
        return None
    return repo, found["revision"]


def fetch(repo: str, *, files: Sequence[str] = HUB_FILES) -> Path:
    """Download what loading needs of a Hub repository; return the folder of the snapshot.

    Args:
        repo: `user/name`, or `user/name@revision` (a commit, a tag or a branch; default: main).
        files: patterns of what to download (default: all that loading needs).

    Raises:
        ValueError: when it is not there, not allowed, or the network fails.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = repo.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except Exception as error:  # the Hub's errors, those of HTTP below it, and a refused repository id
        raise ValueError(
            f"{repo} is no folder here, and fetching a model of that name from the Hugging Face Hub failed "
            f"({first_line(error)}); check the spelling and the network; a private model needs `hf auth login`"
        ) from error


def context_length(model_or_config: Any) -> int | None:
    """The most tokens that a model sees at once; None where its config names no limit.

    Args:
        model_or_config: a model of transformers, its config, or the content of its config.json. Only a model shows the
            positions that RoBERTa's family leaves unused.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if isinstance(config, Mapping):
        values = map((config.get("text_config") or config).get, CONTEXT_NAMES)
    else:
        text_config = config.get_text_config(decoder=True)
        values = (getattr(text_config, name, None) for name in CONTEXT_NAMES)
    limit = next((value for value in values if isinstance(value, int) and value > 0), None)
    return limit if limit is None or config is model_or_config else limit - _unused_positions(model_or_config, limit)


def _unused_positions(model: Any, limit: int) -> int:
    """Rows of a learned table of `limit` positions that no token uses: RoBERTa and its relatives count positions from
    the padding id."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "num_embeddings", None) == limit:
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def check_files(folder: Path) -> None:
    """Compare a model folder with the checksums that lie in it: SHA256SUMS of a checkpoint, the record of a bundle.

    What only a resume reads is left out. In a bundle, weights and vocabularies have to match; other files are for
    people to edit (generation_config.json, the card), and a change of a .json among them is logged.

    Raises:
        ValueError: naming the files that changed, and of a checkpoint the last good one beside it.
    """
    if damaged_files(folder, leave_out="training/"):
        run = RunFolder.containing(folder)
        good = run.good_checkpoint() if run else None
        other = f"Take the last good checkpoint, {good}." if good else "Export or copy the model again."
        check_folder(folder, other, leave_out="training/")
    recorded = recorded_checksums(read_json_object_or_empty(folder / CHECK_RECORD))
    changed = damaged_files(folder, {name: checksum for name, checksum in recorded.items() if _is_loaded(name)})
    if fixed := [name for name in changed if not name.endswith(".json") or Path(name).name in VOCABULARIES]:
        raise ValueError(
            f"{folder}: expected the model that was checked, but {describe_damage(fixed)}. Export or copy it again; "
            f"or, where it was changed on purpose, check it with `python -m hub_export verify {folder}`"
        )
    if changed:
        logger.warning("%s: %s (changed by hand, or damaged)", folder, describe_damage(changed))


def recorded_checksums(record: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of files by name in the record of a bundle's check; {} where it is another program's proof.json."""
    checksums = record.get("sha256")
    return checksums if is_json_object(checksums) else {}


def _is_loaded(name: str) -> bool:
    return name.endswith(LOADED_ENDINGS)


def is_masked_lm(folder: Path) -> bool:
    """Whether the config of a model folder names a masked language model; imports nothing heavy."""
    return any(name.endswith(MASKED_HEADS) for name in _heads(folder))


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a model folder has a chat template; imports nothing heavy.

    Raises:
        ValueError: its tokenizer_config.json is damaged.
    """
    if any((folder / name).is_file() for name in CHAT_TEMPLATES):
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_json_object(path).get("chat_template"))


def load_model(folder: Path, *, device: str | None = None) -> Any:
    """The causal or masked language model in a folder, as its config's `architectures` says, in evaluation mode.

    Args and errors as those of `load_causal_lm`.
    """
    if is_masked_lm(folder):
        return _load("AutoModelForMaskedLM", folder, device)
    return load_causal_lm(folder, device=device)


def load_causal_lm(folder: Path, *, device: str | None = None) -> Any:
    """The causal language model in a folder, in evaluation mode.

    Args:
        device: default CUDA where there is one, else the CPU (in float32).

    Raises:
        ValueError: the model is damaged, incomplete or no causal language model, or a newer ScratchGPT wrote it in a
            form that this one does not read.
    """
    heads = _heads(folder)
    if heads and not any(name.endswith(CAUSAL_HEADS) for name in heads):
        raise ValueError(f"{folder} holds a {heads[0]}, which cannot write: expected a causal language model")
    return _load("AutoModelForCausalLM", folder, device)


def _heads(folder: Path) -> list[str]:
    return [str(name) for name in read_json_object(folder / "config.json").get("architectures") or []]


def _load(auto_class: str, folder: Path, device: str | None) -> Any:
    stamps = stamps_of(folder)
    check_sizes(folder)
    with quick_imports():
        import torch
        import transformers
        from transformers.utils import logging as transformers_logging

        register()
        loader = getattr(transformers, auto_class)

    check_files(folder)
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        transformers_logging.set_verbosity_error()  # what it reports in a table is said below in a line
        check_parameters(folder, loader)
        loaded: Any = loader.from_pretrained(
            folder,
            dtype=torch.float32 if device == "cpu" else "auto",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,  # other formats of weights are pickles, which can hold code
            ignore_mismatched_sizes=True,  # they are errors below, with a message that names them
            output_loading_info=True,
        )
        model, loading = loaded
    except Exception as error:  # every library below has exceptions of its own for a broken file
        reason = first_line(error)
        explained = _newer_version(folder, reason) or (
            f"expected a config.json and weights that transformers {transformers.__version__} takes, got an error "
            f"({reason}); download, copy or bundle the model again"
        )
        raise ValueError(f"cannot load the model in {folder}: {explained}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    wrong = sorted(loading["missing_keys"]) + sorted(key for key, *_ in loading["mismatched_keys"])
    unknown = sorted(loading["unexpected_keys"])
    if (wrong or unknown) and (
        sentence := _newer_version(folder, f"its weights have another shape: {[*wrong, *unknown][0]}")
    ):
        raise ValueError(f"cannot load the model in {folder}: {sentence}")
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"{folder} is incomplete: its weights lack {wrong[0]}{more}; export or copy it again")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        logger.warning(
            "%s: its weights hold what the model has no place for, and it is left out: %s", folder, unknown[0] + more
        )
    _log_other_transformers(folder, transformers.__version__)
    model = model.to(device)
    if device == "cpu":
        # They may still be the mapped file: overwritten in place it would change them, and cut off end the process.
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    refuse_replaced(folder, stamps)
    return model.eval()


def stamps_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What tells, without reading them, whether the files were replaced that a model is loaded from."""
    return file_stamps(folder, LOADED_ENDINGS)


def refuse_replaced(folder: Path, stamps: dict[str, tuple[int, int, int]]) -> None:
    """Refuse a model whose files were written or replaced while it was loaded: its config, tokenizer and weights, or
    the halves of its weights, may be of two models. That files were removed after they were read is no harm.

    Args:
        stamps: `stamps_of` the folder before.

    Raises:
        ValueError: naming a file.
    """
    if replaced := {name for name, stamp in stamps_of(folder).items() if stamps.get(name) != stamp}:
        raise ValueError(
            f"{folder}: expected a model that stays while it is loaded, but {min(replaced)} was replaced meanwhile; "
            "load it again"
        )


def _newer_version(folder: Path, reason: str) -> str | None:
    """What to do about a model that cannot be loaded, where a newer ScratchGPT wrote it; None where none did."""
    from modeling.configuration_scratchgpt import CODE_VERSION, VERSION_KEY, version_numbers

    config = read_json_object(folder / "config.json")
    version = str(config.get(VERSION_KEY, ""))
    if config.get("model_type") != "scratchgpt" or version_numbers(version) <= version_numbers(CODE_VERSION):
        return None
    cause = reason.partition(";")[0].rstrip(".")
    return (
        f"ScratchGPT {version} wrote it, and this is ScratchGPT {CODE_VERSION} ({cause}); "
        f"get ScratchGPT {version} or a newer one, and run the same command there"
    )


@functools.cache
def _log_other_transformers(folder: Path, installed: str) -> None:
    """Log, once for each folder, that a bundle was checked with another transformers than the installed one."""
    try:
        checked = read_json_object(folder / CHECK_RECORD).get("transformers")
    except ValueError:  # none, or a damaged one: loading needs none, and publishing reports it
        return
    if isinstance(checked, str) and checked != installed:
        logger.warning(
            "%s was checked with transformers %s, and transformers %s is installed: to check it with that, run "
            "`python -m hub_export verify %s`",
            folder,
            checked,
            installed,
            folder,
        )


def _with_config(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no model: no config.json (and no run.json) in it; "
            "expected a bundle, a checkpoint or a run folder"
        )
    return folder
