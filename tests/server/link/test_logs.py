"""gliofed-server logs and stop."""

from pathlib import Path

import pytest

from gliofed.server.link.control import key_bytes
from gliofed.server.link.logs import logs, stop
from gliofed.server.link.proxy import ACCESS_LOG, logged_key
from gliofed.server.link.runs import Run
from gliofed.shared.keys import new_key, read_public
from gliofed.shared.parse import ConfigError


def test_stop_takes_the_run_that_goes_on(watched: Path, run: Run) -> None:
    assert stop(watched, None)[0].startswith("one: will stop")
    assert run.wanted().wanted == "stop"
    with pytest.raises(ConfigError, match="no run waits or runs"):
        stop(watched, None)
    with pytest.raises(ConfigError, match="one: it is stopped"):
        stop(watched, "one")


def test_a_log_is_followed_until_the_run_is_over(watched: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole lines, without what a terminal would obey."""
    run.files.log.write_text("first\n\x1b[92mINFO\x1b[0m second \x1b]0;x\x07\nhal")

    def sleep(seconds: float) -> None:
        with run.files.log.open("a") as log:
            log.write("f\nlast\n")
        run.want("stop")

    logs(watched, "one", True, sleep)
    assert capsys.readouterr().out.splitlines() == ["first", "INFO second \\x1b]0;x\\x07", "half", "last"]


def test_without_a_name_the_links_logs_are_shown(watched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no logs yet, since gliofed-server start has not run"):
        logs(watched, None, False)
    (watched / "link").mkdir(exist_ok=True)
    (watched / "link" / "nginx.log").write_text("\n".join(map(str, range(100))))
    logs(watched, None, False)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("== ")
    assert said[1:] == [str(number) for number in range(60, 100)]


def test_the_access_log_is_shown_with_names(watched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a site that was expelled: what its key did before stays of interest."""
    sites = watched / "sites"
    keys = [read_public((sites / site / "key.pub").read_text(), "") for site in ("hospital-a", "hospital-b")]
    keys.append(new_key().public_key())
    (sites / "hospital-c").mkdir()
    (sites / "hospital-c" / "key.pub").write_text("damaged")
    (watched / "link").mkdir(exist_ok=True)
    logged = "".join(f"2027-01-01T00:00:00+00:00 10.1.2.3 {logged_key(key_bytes(key))} x\n" for key in keys)
    (watched / "link" / ACCESS_LOG).write_text(logged)
    logs(watched, None, False)
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in said[1:]] == ["hospital-a", "hospital-b", logged_key(key_bytes(keys[2]))]
