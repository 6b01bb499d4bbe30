"""Run at the start of a test's Python that must not find this project: take its editable install away."""

import sys

sys.meta_path[:] = [
    finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable___scratchgpt")
]
