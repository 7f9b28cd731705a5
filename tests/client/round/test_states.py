"""What a site keeps between rounds: which request goes on from what, and what happens where that is gone."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest
import torch
from asked_site import events_of
from judged_site import train
from small_run import composed
from withdrawal import WHO

from gliofed.client.round.policy import DeclinedError, check_run
from gliofed.client.round.states import States
from gliofed.client.round.withdraw import withdraw
from gliofed.server.round.model import initial_model
from gliofed.shared.audit import audit_file
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import MessageError, Reply, Request
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.settings import parse_settings


@pytest.fixture(scope="module")
def run() -> RunConfig:
    return parse_settings(composed("data.validation=0", "optimizer.moments=kept"))[0]


@pytest.fixture
def new(begun: Path, tmp_path: Path) -> SiteConfig:
    """A site that kept nothing yet."""
    return SiteConfig(name="a", root=str(begun / "scans"), labels="mock", work=str(tmp_path / "new"), device="cpu")


def asked(run: RunConfig, round: int, parent: str = "", run_id: str = "s") -> Request:
    return Request(
        run_id=run_id, round=round, config=run, weights=weights_to_bytes(travelling(initial_model(run))), parent=parent
    )


def declined(site: SiteConfig, request: Request) -> str:
    """The sentence for the site's own log."""
    with pytest.raises(DeclinedError) as caught:
        train(site, request)
    assert caught.value.code == "state"
    return str(caught.value)


def rounds(site: SiteConfig, run: RunConfig, number: int) -> list[Reply]:
    """So many rounds that all count."""
    replies: list[Reply] = []
    for round in range(1, number + 1):
        replies.append(train(site, asked(run, round, replies[-1].update_sha256 if replies else "")))
    return replies


def kept(site: SiteConfig, run_id: str = "s") -> dict[str, Path]:
    """The files by the update that they are of."""
    return {path.name.partition("-")[0]: path for path in (site.folder.state / run_id).glob("*")}


@pytest.mark.parametrize("damage", ["gone", "truncated", "empty", "other"])
def test_a_state_that_is_gone_or_damaged_stops_the_site(new: SiteConfig, run: RunConfig, damage: str) -> None:
    """It never begins anew by itself: what others average would be of two kinds. Nothing is trained, or stored."""
    (first,) = rounds(new, run, 1)
    (path,) = kept(new).values()
    whole, before = path.read_bytes(), {*new.folder.outbox.iterdir()}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[:-1], "empty": b"", "other": whole[:-1] + b"?"}[damage])
    sentence = declined(new, asked(run, 2, first.update_sha256))
    assert sentence.endswith("ask the aggregator to let this site start anew")
    assert ("no state of update" if damage == "gone" else "damaged") in sentence
    assert {*new.folder.outbox.iterdir()} == before
    path.write_bytes(whole)
    assert train(new, asked(run, 2, first.update_sha256)).status == "ok"


def test_the_same_request_gets_the_same_bytes_also_when_it_is_trained_again(new: SiteConfig, run: RunConfig) -> None:
    """From the same state, which is still there; from another one, or from none, the answer is another."""
    first, second = rounds(new, run, 2)
    again = asked(run, 2, first.update_sha256)
    assert train(new, again).update == second.update
    rmtree(new.folder.outbox)
    assert train(new, again).update == second.update
    assert again.key != asked(run, 2).key != asked(run, 2, second.update_sha256).key
    others = [train(new, asked(run, 2, parent)).update for parent in ("", second.update_sha256)]
    assert len({second.update, *others}) == 3


def test_what_did_not_count_is_not_gone_on_from(new: SiteConfig, run: RunConfig) -> None:
    """The server refused the second update, and names the first again: as if the second had never been."""
    first, second = rounds(new, run, 2)
    third = train(new, asked(run, 3, first.update_sha256))
    rmtree(new.folder.outbox)
    rmtree(new.folder.state)
    assert train(new, asked(run, 1)).update == first.update
    assert train(new, asked(run, 3, first.update_sha256)).update == third.update
    assert second.update != third.update


def test_a_server_may_go_one_round_back(new: SiteConfig, run: RunConfig) -> None:
    """As after a backup of it was restored. The round before that is gone."""
    first, second, third, fourth = rounds(new, run, 4)
    rmtree(new.folder.outbox)
    assert train(new, asked(run, 4, third.update_sha256)).update == fourth.update
    assert train(new, asked(run, 3, second.update_sha256)).update == third.update
    assert "no state of update" in declined(new, asked(run, 2, first.update_sha256))


def test_refused_updates_do_not_push_out_the_round_before(new: SiteConfig, run: RunConfig) -> None:
    """Two were refused before one counted: the server may still go back to the one that counted before."""
    (first,) = rounds(new, run, 1)
    refused = [train(new, asked(run, round, first.update_sha256)) for round in (2, 3)]
    fourth = train(new, asked(run, 4, first.update_sha256))
    train(new, asked(run, 5, fourth.update_sha256))
    assert {first.update_sha256, fourth.update_sha256} < kept(new).keys()
    assert len(kept(new)) == 3 and not {each.update_sha256 for each in refused} & kept(new).keys()


def test_a_run_goes_on_from_nothing_of_another(new: SiteConfig, run: RunConfig) -> None:
    (first,) = rounds(new, run, 1)
    assert "no state of update" in declined(new, asked(run, 2, first.update_sha256, run_id="other"))
    assert list(kept(new)) == [first.update_sha256]


@pytest.mark.parametrize(
    "parent",
    ["../" * 20 + "abcd", "*", "*" * 64, "?" * 64, "[a-f]" * 12 + "abcd", "A" * 64, "a" * 65, "a" * 64 + "\n", 5],
)
def test_a_parent_that_is_no_hash_is_no_request(run: RunConfig, parent: object) -> None:
    """It would be a pattern of files."""
    records = asked(run, 2).to_records()
    records.config_records["request"]["parent"] = parent  # type: ignore[assignment]
    with pytest.raises(MessageError):
        Request.from_records(records)


def test_a_parent_where_nothing_is_kept_is_no_request() -> None:
    """Else the site would tell the aggregator to let it start anew, which changes nothing."""
    plain = parse_settings(composed())[0]
    assert Request.from_records(asked(plain, 2).to_records()).parent == ""
    with pytest.raises(MessageError, match="of which sites keep nothing"):
        Request.from_records(asked(plain, 2, "a" * 64).to_records())


@pytest.mark.parametrize(
    ("words", "groups", "sentence"),
    [
        ((), (), None),
        (("algorithm=fedbn",), (), None),
        (("optimizer.moments=kept",), (), None),
        (("algorithm=scaffold", "optimizer=sgd"), (), "control beside the update: policy.groups allows none"),
        (("algorithm=scaffold", "optimizer=sgd"), ("control",), None),
        (("optimizer.moments=averaged",), ("control", "exp_avg"), "exp_avg_sq beside the update: policy.groups allows"),
    ],
)
def test_groups_that_may_not_leave(
    run_config: Callable[..., RunConfig], words: tuple[str, ...], groups: tuple[str, ...], sentence: str | None
) -> None:
    """What a site keeps does not leave it, so FedBN sends nothing but updates."""
    policy = PolicyConfig(groups=groups)
    if sentence is None:
        return check_run(policy, run_config(*words))
    with pytest.raises(DeclinedError, match=sentence) as caught:
        check_run(policy, run_config(*words))
    assert caught.value.code == "policy"


def test_a_withdrawn_patient_s_runs_lose_their_states(site: SiteConfig) -> None:
    """A run that trained without the patient keeps its own; one of which nobody knows loses it, too."""
    for run_id in ("r", "without", "damaged", "unlisted"):
        States(site.folder.state / run_id).store("a" * 64, {"exp_avg": {"w": torch.zeros(1)}}, "")
    (site.folder.trained / "without.json").write_text('{"patients": ["somebody"]}')
    (site.folder.trained / "damaged.json").write_text('{"patients": ')
    (site.folder.state / "a-file").write_text("of nobody's: it stopped the command, each time")
    assert withdraw(site, WHO).states == ["damaged", "r", "unlisted"]
    assert [path.name for path in site.folder.state.glob("*/")] == ["without"]


def test_states_go_also_where_the_log_cannot_be_written(site: SiteConfig) -> None:
    States(site.folder.state / "r").store("a" * 64, {"exp_avg": {"w": torch.zeros(1)}}, "")
    (audit_file(Path(site.work)).parent / "head.json").write_text("{}")
    with pytest.raises(DeclinedError):
        withdraw(site, WHO)
    assert list(site.folder.state.glob("*/")) == []


def test_after_a_withdrawal_the_site_has_to_start_anew(site: SiteConfig, run: RunConfig) -> None:
    """From nothing; the parent's state had the patient in it."""
    (first,) = rounds(site, run, 1)
    withdraw(site, WHO)
    assert "no state of update" in declined(site, asked(run, 2, first.update_sha256))
    anew = train(site, asked(run, 2))
    assert (first.patients, anew.patients, list(kept(site))) == (3, 2, [anew.update_sha256])
    assert [event["event"] for event in events_of(site)].count("withdrawn") == 1
