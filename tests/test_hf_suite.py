"""What the runner of transformers' own tests reads from a report, and what it unpacks."""

import io
import tarfile

import pytest

from tests.hf_suite.__main__ import results
from tests.hf_suite.source import PACKAGE, unpack

REPORT = """<testsuites><testsuite>
<testcase classname="a.B" name="test_one" time="1"/>
<testcase classname="a.B" name="test_parts"><failure message="x is not y&#10;more"/></testcase>
<testcase classname="a.B" name="test_parts"/>
<testcase classname="a.B" name="test_half"><skipped message="not this class"/></testcase>
<testcase classname="a.B" name="test_half"/>
<testcase classname="a.B" name="test_none"><skipped message="needs a GPU"/></testcase>
</testsuite></testsuites>"""


def test_of_the_parts_of_a_test_the_worst_counts(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert results(tmp_path / "report.xml") == {
        "test_one": ("passed", ""),
        "test_parts": ("failed", "x is not y"),
        "test_half": ("passed", ""),
        "test_none": ("skipped", "needs a GPU"),
    }


def test_only_the_tests_are_unpacked(tmp_path):
    archive = tmp_path / "transformers-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("t/tests/test_x.py", "t/src/other.py", "t/tests/deep/test_y.py", "t/tests/../../test_z.py"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"x=1"))
    unpack(archive, tmp_path / PACKAGE)
    assert sorted(path.name for path in (tmp_path / PACKAGE).rglob("*.py")) == ["__init__.py", "test_x.py"]
    assert not list(tmp_path.parent.glob("test_z.py"))
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("t/src/other.py"), io.BytesIO())
    with pytest.raises(OSError, match=r"transformers-1\.tar\.gz holds no tests"):
        unpack(archive, tmp_path / "again" / PACKAGE)
