"""The model folder that goes to the Hub: a checkpoint, this project's code, a card, and a record of its check.

The record, proof.json, names what was checked, with which transformers, and the checksum of every file. A bundle whose
files differ from the checked ones is not published: `python -m hub_export verify DIR` checks it and writes the record
again.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from hub_export import card
from hub_export.code_version import MARK, ROOT, project_code, put_code, read_code, refuse_newer, write_config
from hub_export.exports.common import Run, check_free
from hub_export.verify import Verification, verify
from modeling.loading import CHECK_RECORD as RECORD
from modeling.loading import check_files, recorded_checksums
from modeling.stored.weights import WEIGHTS_NAME, read_weights
from storage.checksums import damaged_files, describe_damage, file_checksum, read_checksums
from storage.files import atomic_folder
from storage.prompts import PROMPTS
from storage.records import read_json_object, write_json
from storage.run_folder import PICTURE, RunFolder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CHECKPOINT_FILES = ("config.json", WEIGHTS_NAME, *TOKENIZER_FILES)
# The first is of causal models alone; the last two are those of the sentencepiece library.
OPTIONAL_CHECKPOINT_FILES = (
    "generation_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "tokenizer.vocab",
)  # fmt: skip
SLOW_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt")
OPTIONAL_SLOW_TOKENIZER_FILES = (
    "merges.vocab", "merge_counts.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "tokenizer.vocab", "vocab.json", "merges.txt", "merges.vocab",
)  # fmt: skip
RUN_FILES = (PICTURE, PROMPTS)  # copied when the run has written them
CAUSAL, MASKED = "ScratchGPTForCausalLM", "ScratchGPTForMaskedLM"
TRIES = 5
"""How often a checkpoint is taken that the run, which trains, removes while it is copied."""
AUTO_CLASSES = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM")

logger = logging.getLogger(__name__)


def bundle(
    run: Run,
    out: Path,
    *,
    checkpoint: str = "best",
    force: bool = False,
    repo: str | None = None,
    license: str = card.LICENSE,
    language: str = card.LANGUAGE,
    dtype: Literal["as_trained", "bfloat16"] = "as_trained",
) -> Path:
    """Make the model folder that goes to the Hub; it gets its name once an isolated process has checked it.

    Nothing is converted unless `dtype` asks for it. What is copied is named one by one, so no training state, training
    text or stray file comes along. The code is this project's, also for a checkpoint that an earlier version saved.

    Args:
        run: the run folder.
        out: the bundle to make.
        checkpoint: `best`, `latest` or `step-NNNNNN`.
        force: replace a bundle that exists under this name; any other folder never is.
        repo: `user/name` on the Hub, for the card, where it is known already.
        license: license of the weights, as the Hub spells it, for the card.
        language: language of the corpus, as a code, for the card.
        dtype: number format of the weights. `bfloat16` halves the file and rounds each number to 8 bits; the figures
            on the card are those of the weights as trained.

    Returns:
        `out` as a path.

    Raises:
        ValueError: the run, the checkpoint or `out` is not what is expected, the check failed, or a run that trains
            removed the checkpoint, each of the five times that another one was taken.
        OSError: the folder cannot be written, or the disk is full.
    """
    check_free(out, force, is_ours=out.is_dir() and is_bundle(out), kind="bundle")
    for tries_left in reversed(range(TRIES)):
        run_folder = RunFolder.open(run)
        source = run_folder.checkpoint(checkpoint)
        try:
            _bundle_checkpoint(
                run_folder, source, out, force=force, repo=repo, license=license, language=language, dtype=dtype
            )
            return out
        except (ValueError, OSError) as error:
            if source.is_dir():
                raise
            if not tries_left or checkpoint not in ("best", "latest"):
                raise ValueError(
                    f"{source}: expected a checkpoint that stays while it is copied, but it was removed meanwhile: a "
                    "run that trains keeps its best and its latest ones only. Wait until it has ended, or let it keep "
                    "more (--run.keep-checkpoints)."
                ) from error
            logger.info("%s was removed while it was copied; taking the %s one of now", source, checkpoint)
    raise AssertionError("the last try returns or raises")


def _bundle_checkpoint(
    run_folder: RunFolder,
    source: Path,
    out: Path,
    *,
    force: bool,
    repo: str | None,
    license: str,
    language: str,
    dtype: Literal["as_trained", "bfloat16"],
) -> None:
    """Make the bundle of one checkpoint; the arguments are those of `bundle`."""
    _check_checkpoint(source)
    saved, ours = read_code(source), project_code().version
    if saved is not None and saved.version != ours:
        logger.info(
            "%s was saved with code of version %s; the bundle gets this project's, %s", source, saved.version, ours
        )
    if cut_short := run_folder.state.get("cut_short"):
        logger.info("%s was not trained to its end: %s; the card says so", run_folder.path, cut_short)
    with atomic_folder(out, replace=force) as folder:
        recorded = read_checksums(source)
        for origin, name in _files(run_folder, source):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(origin, folder / name)
        if not source.is_dir():  # then files may be missing that a checkpoint need not have
            raise FileNotFoundError(f"{source} was removed")
        copied = {name: checksum for name, checksum in recorded.items() if (folder / name).is_file()}
        if damaged := damaged_files(folder, copied):
            raise ValueError(f"{source}: {describe_damage(damaged)}, in its copy. Make the bundle again.")
        if dtype == "bfloat16":
            _round_weights(folder)
        put_code(folder)
        text = card.render_card(folder, run_folder, source, repo=repo, license=license, language=language)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
        check_private(folder, machine_paths=private_places(run_folder.path, out))
        # A copy that has the checksums of the checkpoint stands for it, which a run that trains may remove now.
        needs_source = dtype == "as_trained" and WEIGHTS_NAME not in copied
        write_record(folder, verify(folder, checkpoint=source if needs_source else folder))


def _round_weights(folder: Path) -> None:
    """Store the weights in bfloat16, and say so in config.json: transformers then loads them in it."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = folder / WEIGHTS_NAME
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name).to(torch.bfloat16, copy=True) for name in stored.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata)
    write_config(folder, read_json_object(folder / "config.json") | {"dtype": "bfloat16"})


def is_bundle(folder: Path) -> bool:
    """Whether `folder` is a bundle of ours (and neither a checkpoint nor a run), so that it may be replaced."""
    if not all((folder / name).is_file() for name in ("config.json", "README.md", "modeling_scratchgpt.py")):
        return False
    if (folder / "training").exists() or RunFolder(folder).has_state:
        return False
    return read_json_object(folder / "config.json").get("model_type") == "scratchgpt"


def private_places(*places: Path) -> tuple[Path, ...]:
    """What no published file may name: `places`, the working directory, the user's home and this project's folder."""
    return *places, Path.cwd(), Path.home(), ROOT


def check_private(folder: Path, *, machine_paths: tuple[Path, ...]) -> None:
    """Refuse a folder whose files name a place on this machine or hold an access token.

    Args:
        folder: the bundle; the numbers of its weights are not searched, its tokenizers' vocabularies not for paths.
        machine_paths: places that must not be named; those directly under the root are too common to search for.

    Raises:
        ValueError: naming the file and the kind of the finding, never the token itself.
    """
    from huggingface_hub import get_token

    forms = {form for path in machine_paths for form in (path.absolute(), path.resolve()) if len(form.parts) > 2}
    places = {written for form in forms for written in (str(form), form.as_posix())}
    places |= {json.dumps(place, ensure_ascii=is_ascii)[1:-1] for place in places for is_ascii in (True, False)}
    token = get_token()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = _searched(path).decode("utf-8", errors="replace")
        found = None
        if (token and token in content) or re.search(r"\bhf_[A-Za-z0-9]{30,}\b", content):
            found = "an access token"
        elif path.name not in VOCABULARIES:
            found = next((f"the path {place}" for place in sorted(places) if place in content), None)
        if found:
            raise ValueError(
                f"{path.relative_to(folder)}: expected nothing of this machine in a bundle, but it holds {found}. "
                "Remove it from the run's files and export again."
            )


def _searched(path: Path) -> bytes:
    """The bytes of a file; of weights the header, which holds their names and what was noted beside."""
    with path.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little")) if path.suffix == ".safetensors" else stream.read()


def _check_checkpoint(source: Path) -> None:
    """Reads what can be checked without loading the model: the files, the weights' header, the config's auto_map."""
    check_files(source)
    read_weights(source)
    for name in TOKENIZER_FILES:
        if not (source / name).is_file():
            raise ValueError(
                f"{source}: expected a tokenizer in the checkpoint, but {name} is missing. "
                "Take another checkpoint of the run (`--checkpoint`)."
            )
    slow = source / "slow"
    config = read_json_object(source / "config.json") if (source / "config.json").is_file() else {}
    architectures = config.get("architectures") or ()
    wanted = [*CHECKPOINT_FILES, *(f"slow/{name}" for name in SLOW_TOKENIZER_FILES if slow.is_dir())]
    if MASKED not in architectures:
        wanted.append("generation_config.json")
    missing = [name for name in wanted if not (source / name).is_file()]
    if missing:
        raise ValueError(
            f"{source}: expected a complete checkpoint, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Take another checkpoint of the run (`--checkpoint`)."
        )
    if config.get("model_type") != "scratchgpt" or not {CAUSAL, MASKED} & {*architectures}:
        raise ValueError(
            f"{source}: expected a {CAUSAL} or a {MASKED}, got model_type {config.get('model_type')!r} with "
            f"architectures {config.get('architectures')}. Only these two are exported."
        )
    if MASKED in architectures and not read_json_object(source / "tokenizer_config.json").get("mask_token"):
        raise ValueError(
            f"{source}: expected a tokenizer with a mask token, which a {MASKED} needs, but it has none. "
            "Take another checkpoint of the run (`--checkpoint`)."
        )
    refuse_newer(read_code(source), source)
    if absent := [name for name in AUTO_CLASSES if name not in (config.get("auto_map") or {})]:
        raise ValueError(
            f"{source / 'config.json'}: expected an auto_map for {', '.join(AUTO_CLASSES)}, but {', '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} missing. Save the model with its own save_pretrained."
        )


def _files(run: RunFolder, source: Path) -> Iterator[tuple[Path, str]]:
    """Yields each file to copy, the code aside: where it is, and its name in the bundle."""
    slow = [f"slow/{name}" for name in SLOW_TOKENIZER_FILES + OPTIONAL_SLOW_TOKENIZER_FILES]
    for folder, names in ((source, (*CHECKPOINT_FILES, *OPTIONAL_CHECKPOINT_FILES, *slow)), (run.path, RUN_FILES)):
        for name in names:
            if (folder / name).is_file():
                yield folder / name, name


def write_record(folder: Path, verification: Verification | None = None) -> None:
    """Write proof.json into a bundle that has just been checked.

    Args:
        folder: the bundle.
        verification: what the check found; None (default) keeps that of the present record, for a changed card.
    """
    code, record = read_code(folder), read_record(folder)
    if verification is not None:
        record = {
            "made_by": "scratchgpt",
            MARK: code.version if code else None,
            "transformers": verification.transformers,
            "checks": list(verification.checks),
        }
    write_json(folder / RECORD, record | {"sha256": checksums(folder)})


def read_record(folder: Path) -> dict[str, Any]:
    """What proof.json holds; {} where there is none.

    Raises:
        ValueError: it is damaged.
    """
    return read_json_object(folder / RECORD) if (folder / RECORD).is_file() else {}


def changed_files(folder: Path) -> list[str]:
    """Names of the files that are not as they were when the bundle was checked: changed, added or missing."""
    checked, present = recorded_checksums(read_record(folder)), checksums(folder)
    return sorted(name for name in checked.keys() | present.keys() if checked.get(name) != present.get(name))


def check_record(folder: Path) -> None:
    """Refuse a bundle that was not checked, or not as it is now.

    Raises:
        ValueError: naming what differs and what to do.
    """
    advice = f"Check it as it is now with `python -m hub_export verify {folder}`, or make it again."
    if not (folder / RECORD).is_file():
        raise ValueError(f"{folder}: expected a checked bundle, but it has no {RECORD}. {advice}")
    if changed := changed_files(folder):
        raise ValueError(
            f"{folder}: expected the files that were checked, but {', '.join(changed[:5])}"
            f"{f' and {len(changed) - 5} more' if len(changed) > 5 else ''} "
            f"{'is' if len(changed) == 1 else 'are'} not as then. {advice}"
        )


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a bundle by its name; proof.json and hidden files (caches) are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != RECORD and not any(part.startswith((".", "__")) for part in Path(name).parts):
            found[name] = file_checksum(path)
    return found
