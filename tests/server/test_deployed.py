"""What a run's own log says where its SuperLink ends, as it does at each restart of the aggregator."""

import io
import logging
import threading

import httpx
import pytest

from gliofed.server.deployed import _drop_traceback, _report_thread_end
from gliofed.shared.parse import ConfigError

GONE = httpx.ConnectError("[Errno 111] Connection refused")
UNAUTHORIZED = httpx.HTTPError("Client error '401 Unauthorized'\nFor more information check: a page")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (GONE, "Connection refused"),
        (UNAUTHORIZED, "401 Unauthorized"),
        (ConfigError("round-0001: damaged"), "round-0001: damaged"),
        (KeyError("a fault of the code"), "Traceback"),
    ],
)
def test_a_restart_leaves_no_traceback(error: Exception, sentence: str) -> None:
    """It read as a fault; that of a real one is kept."""
    said, logger = io.StringIO(), logging.Logger("flwr")
    logger.addHandler(logging.StreamHandler(said))
    logger.addFilter(_drop_traceback)
    try:
        raise error
    except Exception as raised:
        logger.log(logging.ERROR, "%s raised an exception", "ServerApp", exc_info=raised)
    assert sentence in said.getvalue()
    assert ("Traceback" in said.getvalue()) == isinstance(error, KeyError)
    assert isinstance(error, KeyError) or said.getvalue().count("\n") == 1


@pytest.mark.parametrize("error", [UNAUTHORIZED, KeyError("a fault of the code")])
def test_nor_does_a_thread_of_flowers(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    _report_thread_end(threading.ExceptHookArgs((type(error), error, None, threading.current_thread())))
    said = capsys.readouterr().err
    assert ("401 Unauthorized" in said and said.count("\n") == 1) or "KeyError" in said
