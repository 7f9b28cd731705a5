"""gliofed-client approve: a person at the hospital reads the code that is to run there, and agrees to its hash."""

import hashlib
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from difflib import unified_diff
from io import BytesIO
from pathlib import Path

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.site_file import own_folder, work_of
from gliofed.shared.audit import note_act
from gliofed.shared.code import LIMIT, build_code, files_of
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.kit import Sha256
from gliofed.shared.parse import ConfigError, Strict, parse
from gliofed.shared.terminal import command_line, plain, tell
from gliofed.shared.wording import quantity

NOT_APPROVED = 1
TYPED = 8
"""Characters of the hash that are typed: enough that nobody agrees by pressing Enter."""


@dataclass(frozen=True, kw_only=True)
class Approval(Strict):
    """A line of approved.json: a bundle that may run at this hospital."""

    sha256: Sha256
    time: str
    """ISO 8601."""
    files: int
    """How many were shown."""


def approve(folder: Path, code: Path | None = None, sha256: str | None = None) -> int:
    """Show the code and ask; 0 where it is approved, 1 where not. Raises ConfigError over wrong use."""
    known, path = approved(own_folder(folder)), code or HospitalFolder(folder).code
    bundle = _read(path)
    digest = hashlib.sha256(bundle).hexdigest()
    try:
        files = files_of(bundle)
        proposed = _texts(files)
    except ConfigError as error:
        return _not_approved(f"{path}: {error}")
    _show(proposed, *_reference(folder, known))
    if not known:  # what does not differ was not shown
        print(f"to read all of it: {command_line('gliofed-client', 'approve', folder)} --unpack DIR")
    print(f"hash: {digest}")
    if any(each.sha256 == digest for each in known):
        print("approved before")
        return 0
    if reason := _refusal(digest, sha256):
        return _not_approved(reason)
    # The bundle first: no hash is approved whose code the hospital does not keep.
    write_bytes(HospitalFolder(folder).approved / f"{digest}.fab", bundle)
    note_act(work_of(folder), "code_approved", sha256=digest)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    line = Approval(sha256=digest, time=time, files=len(files))
    write_json(HospitalFolder(folder).approvals, [asdict(each) for each in (*known, line)])
    print("approved")
    return 0


def unpack(folder: Path, code: Path | None, to: Path) -> int:
    """Write the code's files into a new folder, as they would run; approve nothing. Raises ConfigError.

    Other programs may read a crafted archive in another way.
    """
    path = code or HospitalFolder(own_folder(folder)).code
    files = files_of(_read(path))
    if to.exists():
        raise ConfigError(f"{to}: there already; give a new folder")
    for name, content in files.items():
        write_bytes(to / name, content)
    print(f"{to} has {quantity(len(files), 'file')} of {path}; nothing was approved")
    return 0


def withdraw(folder: Path, sha256: str) -> int:
    """Forget the approval of the code whose hash begins so; it holds from the next request on. Raises ConfigError."""
    known = approved(own_folder(folder))
    found = [each for each in known if len(sha256) >= TYPED and each.sha256.startswith(sha256.lower())]
    if len(found) != 1:
        there = ", ".join(each.sha256[:TYPED] for each in known) or "none"
        sentence = f"of no approved code; give {TYPED} characters or more of one; approved: {there}"
        raise ConfigError(f"--withdraw {sha256}: {sentence}")
    write_json(HospitalFolder(folder).approvals, [asdict(each) for each in known if each not in found])
    print(f"withdrawn: {found[0].sha256}", flush=True)
    # Last, for no code must run for want of a line.
    note_act(work_of(folder), "approval_withdrawn", sha256=found[0].sha256)
    return 0


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMIT + 1)


def approved(folder: Path) -> tuple[Approval, ...]:
    """Read what this hospital approved, the oldest first; none where nothing was. ConfigError over a damaged file."""
    path = HospitalFolder(folder).approvals
    if not path.exists():
        return ()
    try:
        return parse(tuple[Approval, ...], path.read_text(errors="replace"), "approved")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _reference(folder: Path, known: tuple[Approval, ...]) -> tuple[str, dict[str, list[str]]]:
    """Give what the proposal is compared to, and its name: the last approved code, else the installed."""
    if not known:
        return "the code that is installed here", _texts(files_of(build_code()))
    last = known[-1]
    kept = HospitalFolder(folder).approved / f"{last.sha256}.fab"
    content = kept.read_bytes()
    if hashlib.sha256(content).hexdigest() != last.sha256:
        raise ConfigError(f"{kept}: not the code that was approved; restore it from a copy")
    return f"the code approved on {last.time}", _texts(files_of(content))


def _texts(files: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Split each file at its line feeds alone, so that no other byte of a difference is lost."""
    if odd := next((path for path, content in sorted(files.items()) if not _is_text(content)), None):
        raise ConfigError(f"{odd} is not text, or of another coding, so nobody can read it")
    return {path: content.decode().split("\n") for path, content in sorted(files.items())}


def _is_text(content: bytes) -> bool:
    """Whether Python reads it as it is shown here; `# coding: utf-7` makes it read letters that are not there."""
    # Python takes a carriage return for a line's end when it looks for that comment, and tokenize does not.
    lines = BytesIO(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    try:
        content.decode()
        return tokenize.detect_encoding(lines.readline)[0] == "utf-8"
    except (UnicodeDecodeError, SyntaxError):
        return False


def _show(proposed: Mapping[str, list[str]], name: str, reference: Mapping[str, list[str]]) -> None:
    for path, lines in proposed.items():
        print(f"{quantity(len(lines) - (lines[-1] == ''), 'line'):>12}  {path}")
    changed = [path for path in sorted({*proposed, *reference}) if proposed.get(path) != reference.get(path)]
    print(f"{quantity(len(proposed), 'file')}; {quantity(len(changed), 'differs', 'differ')} from {name}")
    for path in changed:
        old, new = reference.get(path, []), proposed.get(path, [])
        for line in unified_diff(old, new, f"before/{path}", f"proposed/{path}", lineterm=""):
            print(plain(line))


def _refusal(digest: str, sha256: str | None) -> str | None:
    """Say why the person does not agree to the hash; None where they do."""
    if sha256 is not None:
        return None if sha256.lower() == digest else f"--hash {sha256} is not the hash of this code"
    if not sys.stdin.isatty():
        return "nobody to ask; give the hash of the code that was read, with --hash"
    try:
        typed = input(f"To approve this code, type the first {TYPED} characters of the hash: ")
    except EOFError:
        typed = ""
    return None if typed.strip().lower() == digest[:TYPED] else f"type the first {TYPED} characters of the hash"


def _not_approved(reason: str) -> int:
    tell("gliofed-client", f"not approved: {reason}")
    return NOT_APPROVED
