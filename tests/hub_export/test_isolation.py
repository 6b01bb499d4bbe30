"""The process that checks a model folder."""

from pathlib import Path

import pytest

from hub_export.isolation import run_fresh

ROOT = Path(__file__).parents[2]
IMPORT_OURS = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, json.loads(Path(sys.argv[1]).read_text())["checkout"])
found = []
for name in ("storage", "corpus", "modeling", "tokenization", "train", "hub_export", "panels"):
    try:
        __import__(name)
        found.append(name)
    except ModuleNotFoundError:
        pass
report = {"found": found, "variables": sorted(name for name in os.environ if name.startswith("HF_"))}
(Path(sys.argv[1]).parent / "report.json").write_text(json.dumps(report))
"""


def test_it_cannot_import_this_project_and_has_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    script = tmp_path / "script.py"
    script.write_text(IMPORT_OURS)
    report = run_fresh(script, tmp_path, {"checkout": str(ROOT)})
    assert report == {"found": [], "variables": ["HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"]}


def test_a_process_that_ends_without_a_report_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise RuntimeError('no memory')")
    with pytest.raises(
        ValueError, match="expected the checking process to report, but it ended with status 1: .*no mem"
    ):
        run_fresh(script, tmp_path, {})
