"""Run the checks in the environment of this Python: `python run.py TASK.json`.

It imports nothing of the project; a bundle's own code comes through the Auto classes alone. The task names the bundles
and an empty folder to write in. The report goes to report.json beside the task: each check with its group, the bundle's
kind and, where it failed, the error; what was told meanwhile; and the versions of the libraries.
"""

import gc
import importlib.metadata
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")  # what importing tells is not a bundle's doing

import torch  # noqa: E402
from notices import Notices  # noqa: E402

PACKAGES = ("transformers", "torch", "tokenizers", "huggingface_hub", "accelerate", "safetensors", "regex", "numpy")


def main() -> None:
    """Run what the task asks for, and write the report."""
    started = time.perf_counter()
    task_path = Path(sys.argv[1])
    task = json.loads(task_path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    bundles = [Path(folder) for folder in task["bundles"]]
    scratch = Path(task["scratch"])
    if task["too_old"]:
        import too_old

        report: dict[str, Any] = {"checks": too_old.run(bundles, task["lowest"])}
    else:
        report = run(bundles, scratch, task.get("only"))
    report["packages"] = {name: importlib.metadata.version(name) for name in PACKAGES}
    report["seconds"] = round(time.perf_counter() - started, 1)
    task_path.with_name("report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def run(folders: list[Path], scratch: Path, only: list[str] | None) -> dict[str, Any]:
    """Every check (or those named in `only`) on every bundle of its kinds; and what was told meanwhile."""
    import forward  # noqa: F401 (it registers its checks, and so do the two below)
    import generation  # noqa: F401
    import loading  # noqa: F401
    import newer  # noqa: F401
    from harness import CHECKS, Bundle

    notices = Notices()
    notices.record()
    found = []
    for folder in folders:
        bundle = Bundle(folder, scratch)
        for check in CHECKS:
            if bundle.kind in check.kinds and not (only and check.name not in only):
                found.append(
                    {"bundle": bundle.kind, "check": check.name, "group": check.group} | _outcome(check, bundle)
                )
        del bundle
        gc.collect()
    faults = notices.of_the_bundle()
    told = {"error": "; ".join(faults)} if faults else {}
    found.append({"bundle": "all", "check": "nothing_deprecated", "group": "warnings", "passed": not faults} | told)
    meaning = {check.name: (check.run.__doc__ or "").strip().splitlines()[0] for check in CHECKS}
    meaning["nothing_deprecated"] = "Nothing that these files do is announced to go."
    return {"checks": found, "notices": notices.listed(), "meaning": meaning}


def _outcome(check: Any, bundle: Any) -> dict[str, Any]:
    try:
        check.run(bundle)
    except Exception as error:
        kind = "" if type(error).__name__ == "CheckError" else f"{type(error).__name__}: "
        return {"passed": False, "error": f"{kind}{error}"[:600]}
    return {"passed": True}


if __name__ == "__main__":
    main()
