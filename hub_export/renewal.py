"""The copy of a bundle that is uploaded: as it was checked, or with this project's code and checked again.

A bundle may be older than this project, or have been checked with another transformers than the installed one; a
folder that `hf download` made of a repository is a bundle too. Whoever has nothing else can publish it again.
"""

import logging
import shutil
from fnmatch import fnmatch
from pathlib import Path

from hub_export.code_version import MARK, installed_transformers, project_code, put_code, read_code, refuse_newer
from hub_export.manifest import RECORD, changed_files, check_record, read_record, write_record
from hub_export.upload import OURS
from hub_export.verify import verify

BY_HAND = ("README.md", "loss.png", "prompts.json", "*_scratchgpt.py")
"""Files of an older bundle that may have been changed since its check: for people, or replaced here."""

logger = logging.getLogger(__name__)


def copy_bundle(bundle: Path, folder: Path) -> None:
    """Copies a checked bundle to `folder`; one of another code version gets this project's code and is checked again.

    Args:
        bundle: the bundle; it stays as it is.
        folder: the copy to make.

    Raises:
        ValueError: the bundle was changed since its check or has none, its code is later than this project's, or it
            fails the check.
        OSError: the copy cannot be written.
    """
    code, record, ours = read_code(bundle), read_record(bundle), project_code()
    refuse_newer(code, bundle)
    version = code.version if code else None
    if version == ours.version and (not record or record.get(MARK) == version):
        check_record(bundle)
        shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        checked, installed = record.get("transformers"), installed_transformers()
        if checked != installed:
            logger.info(
                "%s was checked with transformers %s; checking it with the installed %s", bundle, checked, installed
            )
            write_record(folder, verify(folder))
        return
    _copy_ours(bundle, folder)
    put_code(folder)
    logger.info(
        "%s has code of version %s%s; it is uploaded with this project's, %s, and checked with that",
        bundle,
        version,
        "" if code is None or code.takes(installed_transformers()) else f", made for {code.range}",
        ours.version,
    )
    write_record(folder, verify(folder))


def _copy_ours(bundle: Path, folder: Path) -> None:
    """Copies the files that a bundle of ours may have; others, which lie in a downloaded repository, are named.

    Raises:
        ValueError: weights, config or tokenizer are not as they were when the bundle was checked.
    """
    files = [path.relative_to(bundle).as_posix() for path in sorted(bundle.rglob("*")) if path.is_file()]
    visible = [name for name in files if not any(part.startswith((".", "__")) for part in name.split("/"))]
    ours = [name for name in visible if name == "README.md" or any(fnmatch(name, pattern) for pattern in OURS["model"])]
    if (bundle / RECORD).is_file():
        changed = [name for name in changed_files(bundle) if name in ours or not (bundle / name).exists()]
        if damaged := [name for name in changed if not any(fnmatch(name.split("/")[-1], each) for each in BY_HAND)]:
            raise ValueError(
                f"{bundle}: expected the files that were checked, but {', '.join(damaged)} "
                f"{'is' if len(damaged) == 1 else 'are'} not as then. Download it again (`hf download`), or push the "
                "run that it was made from."
            )
    if left := [name for name in visible if name not in ours]:
        logger.info("left out, since no bundle has them: %s", ", ".join(left))
    for name in ours:
        if name != RECORD:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, folder / name)
