"""Checks: what is told where transformers is newer than any that the code was tested with."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import transformers
from harness import EVERY, Bundle, check, expect, remote_module
from transformers import AutoConfig

NEWER = "99.1.0"


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """What the bundle's code and transformers write to the log within the block."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("transformers", "transformers_modules")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@check("messages", *EVERY)
def newer_version(bundle: Bundle) -> None:
    """A transformers newer than any tested is named once when a model is loaded; a tested one is not."""
    config = AutoConfig.from_pretrained(bundle.folder, trust_remote_code=True)
    newest = remote_module(config).NEWEST_TRANSFORMERS
    for version, times in ((NEWER, 1), (newest, 0)):
        # A folder of another name is code that was not imported yet.
        folder = shutil.copytree(bundle.folder, bundle.scratch / f"{bundle.kind}-{times}")
        with mock.patch.object(transformers, "__version__", version), log_lines() as lines:
            for _ in range(2):
                bundle.load(folder)
        told = [line for line in lines if newest in line]
        expect(len(told) == times, f"transformers {version}: expected {times} notices of {newest}, got {told}")
        expect(all(version in line for line in told), f"expected a notice that names {version}, got {told}")
