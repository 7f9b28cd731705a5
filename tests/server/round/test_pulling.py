"""What one site's reply can do to the pull of it, with Flower's own grid; test_mail has what becomes of a round."""

from collections.abc import Callable

import httpx
import pytest

import server.round.pulling
from server.round.pulling import UNREADABLE, Pulled, SeparatePulls

URL = httpx.Request("POST", "https://localhost/v1/runtime/pull-messages")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.round.pulling, "PAUSE", 0.001)


class Failing:
    """A grid whose pulls of one message fail, `times` times; another's is answered."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times = error, times

    def pull_messages(self, messages: list[str]) -> list[str]:
        (message,) = messages
        if message == "bad" and self.times > 0:
            self.times -= 1
            raise self.error
        return [f"reply to {message}"]


def status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=URL, response=httpx.Response(code))


def pulled(pulls: SeparatePulls, *messages: str) -> dict[str, object]:
    """Pull until there is something for each."""
    found: Pulled = []
    while len(found) < len(messages):
        found += pulls([each for each in messages if each not in dict(found)])
    return dict(found)


def test_a_reply_over_which_the_superlink_fails_costs_its_own_site_alone(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower stores a reply made at NaN, and answers 500 to each pull of it."""
    monkeypatch.setattr(server.round.pulling, "PATIENCE", 0.05)
    pulls = SeparatePulls(Failing(status(500), 10**9))  # type: ignore[arg-type]
    assert pulled(pulls, "bad", "good") == {"bad": UNREADABLE, "good": "reply to good"}


def test_a_superlink_that_fails_for_a_moment_costs_nobody_anything(quick: None) -> None:
    pulls = SeparatePulls(Failing(status(500), 3))  # type: ignore[arg-type]
    assert pulled(pulls, "bad", "good") == {"bad": "reply to bad", "good": "reply to good"}


@pytest.mark.parametrize("error", [lambda: status(403), lambda: httpx.ConnectError("refused"), OSError])
def test_what_no_reply_can_cause_ends_the_server(quick: None, error: Callable[[], Exception]) -> None:
    """It is started again, and the run goes on where it was."""
    raised = error()
    with pytest.raises(type(raised)):
        pulled(SeparatePulls(Failing(raised, 1)), "bad")  # type: ignore[arg-type]
