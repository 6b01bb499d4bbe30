from pathlib import Path

import pytest

from hub_export.single_file import check_output, require


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    require("json", for_what="this")
    with pytest.raises(
        ValueError, match=r"^a GGUF file needs no_such_a, which is not installed: pip install no_such_a$"
    ):
        require("json", "no_such_a", for_what="a GGUF file")
    with pytest.raises(
        ValueError, match="needs no_such_a and no_such_b, which are not installed: pip install no_such_a"
    ):
        require("no_such_a", "no_such_b", for_what="this")


def test_only_a_file_of_the_kind_is_replaced_and_only_by_force(tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    check_output(out, False, kind="GGUF", magic=b"GGUF")
    out.write_bytes(b"GGUF and more")
    check_output(out, True, kind="GGUF", magic=b"GGUF")
    with pytest.raises(
        ValueError, match=r"a file of type GGUF is there\. Add --force to replace it, or choose another --out"
    ):
        check_output(out, False, kind="GGUF", magic=b"GGUF")
    out.write_bytes(b"my letters")
    for path in (out, tmp_path):
        with pytest.raises(ValueError, match=r"something that is no GGUF file is there \(so not even --force"):
            check_output(path, True, kind="GGUF", magic=b"GGUF")
