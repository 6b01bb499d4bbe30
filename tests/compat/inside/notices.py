"""What transformers and torch tell a user in the middle of the checks: warnings and lines of the log, by kind."""

import logging
import re
import sys
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent)
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
FADING = re.compile(r"deprecat|will be removed|will stop|no longer|remote code model", re.IGNORECASE)


class Notices:
    """Counts each kind: its category, whose call caused it (`bundle` or `caller`), and its text without numbers."""

    def __init__(self) -> None:
        self.kinds: Counter[tuple[str, str, str]] = Counter()

    def record(self) -> None:
        """From here on every warning and every line of the log is counted, and not shown."""
        warnings.simplefilter("always")
        warnings.showwarning = self._warning  # type: ignore[assignment]
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._line  # type: ignore[method-assign]
        logger = logging.getLogger("transformers")
        logger.handlers = [handler]
        logger.propagate = False
        logging.getLogger("transformers_modules").handlers = [handler]

    def of_the_bundle(self) -> list[str]:
        """Those on something that will go, caused by a bundle's own files; and transformers' own on remote code."""
        return [
            f"{category}: {text}"
            for category, origin, text in self.kinds
            if FADING.search(text) or category in ("FutureWarning", "DeprecationWarning", "PendingDeprecationWarning")
            if origin == "bundle" or "remote code" in text
        ]

    def listed(self) -> list[dict[str, Any]]:
        """All kinds, the most frequent first."""
        return [
            {"category": category, "origin": origin, "text": text, "times": times}
            for (category, origin, text), times in self.kinds.most_common()
        ]

    def _warning(self, message: Any, category: type, *_: Any) -> None:
        self._count(category.__name__, str(message))

    def _line(self, record: logging.LogRecord) -> None:
        self._count(record.levelname.lower(), record.getMessage())

    def _count(self, category: str, text: str) -> None:
        text = re.sub(r"/\S+", "PATH", text.strip().splitlines()[0] if text.strip() else "")
        self.kinds[category, _origin(), re.sub(r"\b\d+(\.\d+)?\b(?!\.)", "N", text)[:300]] += 1


def _origin() -> str:
    """Whose call the notice comes from: of the frames that are no library's, the innermost."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        # The model's `generate` passes on what it is called with: a notice about that is its caller's.
        if "transformers_modules" in file and frame.f_code.co_name != "generate":
            return "bundle"
        if file.startswith(HERE) and not file.endswith("notices.py"):
            return "caller"
        frame = frame.f_back
    return "caller"
