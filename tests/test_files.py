"""Files that are replaced atomically, also by several writers at once."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from plasticity.runs.files import sweep, write_atomically, write_text


def test_two_writers_of_one_file(tmp_path):
    """Both write at the same time; neither sees a partial file of the other."""
    path, both = tmp_path / "file", threading.Barrier(2, timeout=20)

    def work(letter: str) -> None:
        def write(temporary: Path) -> None:
            with open(temporary, "w") as file:
                for _ in range(20):
                    both.wait()
                    file.write(letter)

        write_atomically(path, write)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 20, "b" * 20)
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_names_the_file_and_leaves_nothing(tmp_path):
    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(tmp_path / "file", fail)
    assert error.value.filename == str(tmp_path / "file")
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError) as missing:
        write_text(tmp_path / "gone" / "file", "text")
    assert missing.value.filename == str(tmp_path / "gone" / "file")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)


def test_sweep_spares_what_may_be_under_way(tmp_path):
    (tmp_path / "old.1-a.tmp").touch()
    os.utime(tmp_path / "old.1-a.tmp", (time.time() - 7200,) * 2)
    (tmp_path / "new.2-b.tmp").touch()
    (tmp_path / "file").touch()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["file", "new.2-b.tmp"]
    sweep(tmp_path, older=0.0)
    assert os.listdir(tmp_path) == ["file"]
    sweep(tmp_path / "nowhere")
