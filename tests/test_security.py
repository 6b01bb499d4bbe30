"""What docs/security.md promises of the code as a whole; that the tests which it names are there."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.test_architecture import ROOT, SOURCES, name_of, tree_of
from tokenization import load_tokenizer

CLOSED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TRUSTING = {"hub_export/checks.py"}
"""Where the code of a model's folder is run: the checks of one's own bundle, in a process of their own."""


def test_the_tests_that_the_page_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    for path, name in named:
        defined = {node.name for node in tree_of(ROOT / path).body if isinstance(node, ast.FunctionDef)}
        assert name in defined, f"{path}::{name}"


def test_no_module_opens_pickles_runs_text_or_starts_a_shell() -> None:
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert not {module.split(".")[0] for module in modules} & CLOSED_MODULES, (name_of(path), modules)
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert called not in {"torch.load", "exec", "os.system", "yaml.load"}, (name_of(path), node.lineno)
                # modeling/fields.py evaluates annotations of this project's own source text.
                assert called != "eval" or name_of(path) == "modeling/fields.py", (name_of(path), node.lineno)
                assert given.get("allow_pickle") != "True", (name_of(path), node.lineno)
                assert given.get("shell") != "True", (name_of(path), node.lineno)


def test_code_of_others_is_trusted_in_one_place() -> None:
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and name_of(path) not in TRUSTING:
                # or what the user of a command said by the flag of that name
                assert ast.unparse(node.value) in ("False", node.arg), (name_of(path), node.value.lineno)


def test_a_tokenizer_of_others_runs_no_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(ran)!r})\n")
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil"}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"],
)
def test_a_chat_template_reaches_nothing_outside(template: str) -> None:
    from jinja2.exceptions import SecurityError, UndefinedError
    from transformers.utils.chat_template_utils import render_jinja_template

    with pytest.raises((SecurityError, UndefinedError)):
        render_jinja_template(conversations=[[{"role": "user", "content": "x"}]], chat_template=template)
