"""Files that are written whole or not at all."""

import os

import pytest

from pretrain.files import replacing


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "folder" / "file"
    for content in (b"first", b"second"):
        with replacing(path) as file:
            file.write(content)
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    with pytest.raises(type(error)), replacing(path) as file:
        file.write(b"half of the sec")
        raise error
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_explained(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space left on device.*Received: .*file"), replacing(path):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_another_process_writes_is_not(tmp_path):
    path = tmp_path / "file [1]"
    dead, alive, other = (tmp_path / f".{n}.new" for n in ("file [1].a", "file [1].b", "file 1.c"))
    for new in (dead, alive, other):
        new.touch()
    for old in (dead, other):
        os.utime(old, (0, 0))
    with replacing(path):
        pass
    assert set(tmp_path.iterdir()) == {path, alive, other}
