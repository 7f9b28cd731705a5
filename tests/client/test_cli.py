"""gliofed-client: what holds for each of its commands."""

import os
import sys

import pytest

from gliofed.client.cli import main


def test_an_interruption_while_a_command_is_loading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch and Hydra take seconds; Ctrl-C in them is no fault with a traceback."""

    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "gliofed.client.round.audit_command":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "gliofed.client.round.audit_command", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "audit", "verify", "work"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130 and capsys.readouterr().err == "gliofed-client: interrupted\n"


def test_what_it_writes_is_for_nobody_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Scans that were prepared, masks and updates; a hospital's machine has other users."""
    before = os.umask(0o022)
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert os.umask(before) == 0o077
