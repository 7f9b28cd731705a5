"""A log that is only added to: whatever was changed in it is seen, and whoever is killed leaves it whole."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

import gliofed.shared.chain
from gliofed.shared.chain import Chain, head_file, hold_chain, lock, read_chain, read_head, redact
from gliofed.shared.files import append_line
from gliofed.shared.locks import BusyError
from gliofed.shared.parse import ConfigError

# Python 3.12 warns of a fork beside threads; these children do nothing but write two files.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A log of four lines."""
    file = tmp_path / "audit" / "audit.jsonl"
    for number in range(4):
        add(file, number)
    return file


def add(file: Path, *numbers: int) -> str:
    with hold_chain(file, wait=10) as log:
        return log.append(*({"number": number} for number in numbers))


def verify(file: Path) -> Chain:
    return read_chain(file, "", read_head(head_file(file)))


def numbers(file: Path) -> list[int]:
    return [event["number"] for event in verify(file).events()]


def change(file: Path, how: Callable[[list[bytes]], list[bytes]]) -> None:
    file.write_bytes(b"".join(how(file.read_bytes().splitlines(keepends=True))))


def by_hand(line: bytes) -> str:
    """The hash of a line, without our functions: of its first 79 bytes and the hash of the others."""
    start, rest = line[:79], line[79:]
    assert re.fullmatch(rb'\{"before": "[0-9a-f]{64}", ', start) and rest.startswith(b'"salt": "')
    return sha256(start + b'"rest": "' + sha256(rest).hexdigest().encode() + b'"}').hexdigest()


def test_the_hashes_are_those_of_any_other_tool(file: Path) -> None:
    """Each line without its end, by hashlib; the first follows the hash of nothing."""
    lines = file.read_bytes().splitlines()
    before = [json.loads(line)["before"] for line in lines]
    assert before == [sha256(b"").hexdigest(), *map(by_hand, lines[:-1])]
    assert json.loads(head_file(file).read_text()) == {"lines": 4, "hash": by_hand(lines[-1])}


def test_a_log_of_an_earlier_version_goes_on(file: Path) -> None:
    """Its lines have no salt, and their hash is their own."""
    old, before = [], ""
    for number in range(3):
        old.append(json.dumps({"before": sha256(before.encode()).hexdigest(), "number": number}))
        before = old[-1]
    file.write_text("".join(f"{line}\n" for line in old))
    head_file(file).write_text(json.dumps({"lines": 3, "hash": sha256(before.encode()).hexdigest()}))
    add(file, 3)
    assert numbers(file) == [0, 1, 2, 3]
    assert [redact(line) for line in old] == [None] * 3
    change(file, lambda of: [of[0], of[1].replace(b": 1}", b": 7}"), *of[2:]])
    with pytest.raises(ConfigError, match="line 3 does not follow"):
        verify(file)


@pytest.mark.parametrize("hidden", [[0], [1, 2], [3], [0, 1, 2, 3]])
def test_a_redacted_log_holds_and_tells_nothing(file: Path, hidden: list[int]) -> None:
    lines, head = file.read_text().splitlines(), verify(file).head
    copy = [redact(line) or "" if number in hidden else line for number, line in enumerate(lines)]
    file.write_text("".join(f"{line}\n" for line in copy))
    log = verify(file)
    assert log.head == head
    told = [event.get("number", event["event"] if "event" in event else None) for event in log.events()]
    assert told == ["redacted" if number in hidden else number for number in range(4)]
    # Whoever knows all but the salt cannot tell which event it was.
    salts = [json.loads(line)["salt"] for line in lines]
    assert len(set(salts)) == 4
    assert [salt in "".join(copy) for salt in salts] == [number not in hidden for number in range(4)]
    for number in hidden:
        spoilt = copy[number].replace(json.loads(copy[number])["rest"][:8], "00000000")
        file.write_text("".join(f"{line}\n" for line in [*copy[:number], spoilt, *copy[number + 1 :]]))
        with pytest.raises(ConfigError, match=f"line {number + 2} does not follow|line 4 is not the one"):
            verify(file)


@pytest.mark.parametrize(
    ("how", "where"),
    [
        (lambda of: [of[0], of[1].replace(b": 1,", b": 7,"), *of[2:]], "line 3 does not follow"),
        (lambda of: [*of[:3], of[3].replace(b": 3,", b": 7,")], "line 4 is not the one that head.json tells of"),
        (lambda of: [of[0], *of[2:]], "line 2 does not follow"),
        (lambda of: of[1:], "line 1 does not follow"),
        (lambda of: of[:2], "2 lines, not the 4 of head.json: its end was cut off"),
        (lambda of: [], "0 lines, not the 4"),
        (lambda of: [of[0], of[2], of[1], of[3]], "line 2 does not follow"),
        (lambda of: [*of, of[3]], "line 5 does not follow"),
        (lambda of: [of[0], b"\n", *of[1:]], "line 2 does not follow"),
        (lambda of: [*of[:3], of[3].rstrip(b"\n")], "3 lines, not the 4"),
        (lambda of: [*of[:3], of[3].replace(b"\n", b"\r\n")], "line 4 is not the one"),
        (lambda of: [b"\xff\n"], "cannot be read"),
    ],
)
def test_damage_is_named_and_left_as_it_is(file: Path, how: Callable[[list[bytes]], list[bytes]], where: str) -> None:
    change(file, how)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=where) as error:
        verify(file)
    assert str(file) in str(error.value)
    with pytest.raises(ConfigError, match=where), hold_chain(file):
        pass
    assert file.read_bytes() == before


def test_a_whole_new_log_shows_to_who_noted_a_head(file: Path, tmp_path: Path) -> None:
    """Nothing in the two files tells; a head that somebody noted before does."""
    noted = verify(file).head
    other = tmp_path / "other" / "audit.jsonl"
    assert add(other, 0, 1, 2, 4) == verify(other).head
    assert noted in verify(file).hashes and noted not in verify(other).hashes


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"lines": 1e999, "hash": ""}', b"[" * 100_000, b"\xff"])
def test_a_head_that_cannot_be_read(file: Path, text: bytes) -> None:
    head_file(file).write_bytes(text)
    with pytest.raises(ConfigError, match=r"head\.json: cannot be read"):
        verify(file)


def test_an_unfinished_line_is_dropped_by_the_next_writer(file: Path) -> None:
    with file.open("ab") as log:
        log.write(b'{"before": "12')
    (file.parent / ".head.json.12.tmp").write_text("half")
    assert numbers(file) == [0, 1, 2, 3]
    add(file, 4)
    assert numbers(file) == [0, 1, 2, 3, 4]
    assert not list(file.parent.glob("*.tmp"))


def test_what_is_no_event_is_named(file: Path) -> None:
    """Its place in the chain is right, but somebody else wrote it."""
    add(file, 4)
    line = '{"before": "' + verify(file).head + '", rubbish'
    append_line(file, line)
    with pytest.raises(ConfigError, match="line 6 is no event"):
        verify(file).events()


def killed_at(point: str) -> None:
    """Let the process die when it writes: before the lines, in their middle, or between them and the head."""

    def die(path: Path, line: str) -> None:
        if point == "middle":
            with path.open("ab") as log:
                log.write(line.encode()[: len(line) // 2 + 20])  # of two lines the first is whole
        elif point == "between":
            append_line(path, line)
        os.kill(os.getpid(), signal.SIGKILL)

    gliofed.shared.chain.append_line = die


@pytest.mark.parametrize(("point", "there"), [("before", []), ("middle", [8]), ("between", [8, 9])])
def test_a_killed_process_leaves_a_log_that_holds(file: Path, point: str, there: list[int]) -> None:
    child = os.fork()
    if child == 0:
        killed_at(point)
        add(file, 8, 9)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert numbers(file) == [0, 1, 2, 3, *there]
    add(file, 5)
    assert numbers(file) == [0, 1, 2, 3, *there, 5]
    assert read_head(head_file(file))["lines"] == 5 + len(there)


def test_killed_when_it_was_begun(tmp_path: Path) -> None:
    """The empty file is there, the head is not: the next process begins it."""
    (tmp_path / "audit.jsonl").write_bytes(b"")
    add(tmp_path / "audit.jsonl", 0)
    assert numbers(tmp_path / "audit.jsonl") == [0]


def test_threads_and_processes_take_turns(file: Path) -> None:
    child = os.fork()
    if child == 0:
        for number in range(100, 110):
            add(file, number)
        os._exit(0)
    threads = [threading.Thread(target=lambda: [add(file, number) for number in range(200, 210)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(numbers(file)) == sorted([0, 1, 2, 3, *range(100, 110), *range(200, 210), *range(200, 210)])


def test_who_does_not_wait_is_told(file: Path) -> None:
    with lock(file.parent), pytest.raises(BusyError, match="another run"), hold_chain(file):
        pass
    add(file, 4)


def test_a_disk_that_is_full_after_the_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is there: to say that it is not would have a receipt of a reply that did not leave."""
    with monkeypatch.context() as full:
        full.setattr(gliofed.shared.chain, "write_json", no_room)
        add(file, 7)
    assert read_head(head_file(file))["lines"] == 4
    assert numbers(file) == [0, 1, 2, 3, 7]
    add(file, 8)
    assert read_head(head_file(file))["lines"] == 6


def no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")
