import errno
import os
import zipfile

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyzoo.errors import UsageError
from pyzoo.files import remove_leftovers, require_ours, save_arrays, save_figure, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.txt"
    write_whole(file, lambda opened: opened.write(b"first"))

    def fails(opened):
        opened.write(b"second")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_whole(file, fails)
    assert file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("place", ["fsync", "replace", "open"])
def test_a_failure_at_any_point_is_named_and_leaves_nothing(tmp_path, monkeypatch, place):
    file = tmp_path / "a.txt"
    file.write_bytes(b"first")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open" if place == "open" else f"os.{place}", full)
    with pytest.raises(UsageError, match=r"could not write .*a\.txt: No space left on device"):
        write_whole(file, lambda opened: opened.write(b"second"))
    monkeypatch.undo()
    assert file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    for process in (os.getpid(), 999_999_999):
        (tmp_path / f".a.txt.{process}.partial").touch()
    (tmp_path / "mine.partial").touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".a.txt.{os.getpid()}.partial", "mine.partial"}
    remove_leftovers(tmp_path / "nowhere")


def test_only_our_own_files_are_written_over(tmp_path):
    picture, archive = tmp_path / "a.png", tmp_path / "a.npz"
    many = {f"a_long_name_of_an_array_{index}": np.arange(3) for index in range(40)}
    for _ in range(2):
        save_figure(Figure(), picture)
        save_arrays(many, archive)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert zipfile.ZipFile(archive).testzip() is None
    assert np.load(archive)["a_long_name_of_an_array_3"].tolist() == [0, 1, 2]
    Figure().savefig(picture)
    np.savez(archive, **many)
    for path in (picture, archive, tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(UsageError, match="pyzoo did not write it: move it away, or choose another --out"):
            require_ours(path)
        assert (path.read_bytes() if path.is_file() else b"") == before
