"""One lock between processes, for all that must not be done by two at once."""

import threading
from pathlib import Path

import pytest

from gliofed.shared.locks import BusyError, is_locked, lock_file


@pytest.mark.parametrize(("first", "second"), [(False, False), (False, True), (True, False), (True, True)])
def test_only_shared_locks_go_together(tmp_path: Path, first: bool, second: bool) -> None:
    file = tmp_path / "new" / "a.lock"
    with lock_file(file, "", shared=first):
        if first and second:
            lock_file(file, "", shared=True).close()
        else:
            with pytest.raises(BusyError, match=r"^wait for the other$"):
                lock_file(file, "wait for the other", shared=second, wait=0.02)
    lock_file(file, "").close()


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
    file, got = tmp_path / "a.lock", threading.Event()

    def wait() -> None:
        with lock_file(file, "", wait=None):
            got.set()

    with lock_file(file, ""):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert is_locked(file) and not got.is_set()
    waiting.join()
    assert got.is_set() and not is_locked(file)


def test_what_the_holder_wrote_stays(tmp_path: Path) -> None:
    """`start` writes its process there, and another one reads it."""
    with lock_file(tmp_path / "a.lock", "") as held:
        held.write("7\n")
    lock_file(tmp_path / "a.lock", "").close()
    assert (tmp_path / "a.lock").read_text() == "7\n"
    assert not is_locked(tmp_path / "none.lock")
