"""The round: ask, spool, gate, fold, step, save; then the sites evaluate what came of it."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.serverapp import Grid
from torch import Tensor

from gliofed.server.report.page.page import write_page
from gliofed.server.report.sentences import rests
from gliofed.server.report.table import figure, patients_behind
from gliofed.server.round.anew import start_anew
from gliofed.server.round.answers import RESTS, Absent, refusal
from gliofed.server.round.audit import RunAudit, hold_audit
from gliofed.server.round.best import keep_best
from gliofed.server.round.budget import BudgetError, charge_sum
from gliofed.server.round.clip import bounded, scaled
from gliofed.server.round.closing import PART, failed_test, final_test, measure_test, outcome_of
from gliofed.server.round.evaluation import evaluate
from gliofed.server.round.failing import RoundError, SpentError, spent, too_few
from gliofed.server.round.fold import fold
from gliofed.server.round.gate import Measures, judge
from gliofed.server.round.history import Event, History, site_line
from gliofed.server.round.initial import measure_given
from gliofed.server.round.lines import line_of
from gliofed.server.round.model import export_model, first_state
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.provenance import count_all_rounds
from gliofed.server.round.sites import Federation, Sites
from gliofed.server.round.spool import Spool, Spooled
from gliofed.server.round.state import State, load_state, save_state
from gliofed.server.round.strategies import server_step
from gliofed.shared.algorithms import ALGORITHMS, kept_of, next_groups, returned_of
from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.algorithms.groups import joined, parted, zeros
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.noise import new_secret, noisy_mean
from gliofed.shared.run_folder import RunFolder
from gliofed.shared.tasks import TASKS
from gliofed.shared.versions import versions
from gliofed.shared.weights import average_of_rounds
from gliofed.shared.wording import quantity


def federate(grid: Grid, federation: Federation) -> str:
    """Train to the last round, or go on with the run in its folder; return done, incomplete or failed.

    Incomplete: a site that was asked, or expected, did not count in some round; or no site could evaluate the last
    model, or the privacy budget was spent before the last round, and then the end of the history has a reason.
    """
    config, out, run_id = federation.config, federation.out, federation.run_id
    history = History(RunFolder(out).history)
    events = history.events()
    if events and events[-1]["event"] == "end" and events[-1]["status"] != "failed":
        return str(events[-1]["status"])  # it ended, and not for want of a quorum
    start: Event = {"run_id": run_id, "config_hash": config.hash, "versions": versions()}
    if config.privacy.mechanism != "none":
        start["private"] = config.privacy.test_seed is None  # in test mode anybody can compute the noise
    file = RunFolder(out).progress if federation.lossy else None  # nobody asks for the status of a simulation
    with hold_audit(out, federation.keys) as audit, RoundProgress(config.rounds, file) as progress:
        history.repair()  # held by now: another server of this run may have been writing that line
        audit.log_start("resume" if events else "start", run_id, config.hash)
        history.append({"event": "resume" if events else "start", **start})
        sites = Sites(grid, federation, audit, progress)
        reason: Event = {}
        try:
            _Run(config, out, history, sites, progress, run_id, audit, federation.page).train()
            rounds = history.rounds()
            lines = [site for event in rounds for site in event["sites"].values()]
            asked = [site for site in lines if site["status"] != "not_invited"]
            status = "done" if all(site["status"] == "counted" for site in asked) else "incomplete"
            if failed := rounds[-1].get("evaluation_failed") or failed_test(history):
                status, reason = "incomplete", {"reason": f"{failed}; the model is that of round {rounds[-1]['round']}"}
        except RoundError as error:
            history.append(error.event)
            status = "incomplete" if isinstance(error, SpentError) else "failed"
            reason = {"reason": str(error)}
        audit.log_end(status)
        history.append({"event": "end", "status": status, **reason})
    return status


@dataclass(frozen=True)
class _Run:
    config: RunConfig
    out: Path
    history: History
    sites: Sites
    progress: RoundProgress
    run_id: str
    audit: RunAudit
    page: bool = False
    """Whether the report is drawn anew after every round."""

    @property
    def method(self) -> FedAvg:
        """The run's method."""
        return ALGORITHMS[self.config.algorithm.name]

    def train(self) -> None:
        """Run the rounds that are left."""
        first, parameters = first_state(self.config, RunFolder(self.out))
        state = load_state(self.out, self.history, self.config.codec) or first
        if state.event is not None:  # killed after the model was saved, before its line was written
            self.finish(state)
        if self.config.init and state is first:
            measure_given(self.sites, self.history, self.request(0, first.coded, {}), self.progress)
        try:
            while state.round < self.config.rounds:
                state = self.round(state, parameters)
                self.finish(state)
        except SpentError:
            self.close(state)  # it will not be trained any further
            raise
        self.close(state)

    def round(self, state: State, parameters: list[str]) -> State:
        """One round of training: the next state, saved, its event still without evaluations."""
        started, number = time.monotonic(), state.round + 1
        anew = start_anew(self.out, self.history, number) if kept_of(self.config) else set[str]()
        parents = {site: parent for site, parent in state.parents.items() if site not in anew}
        request = self.request(number, state.asked, parents)
        trained = {name: state.weights[name] for name in parameters}
        returned = zeros(returned_of(self.config), trained)
        like = joined(state.weights, {group: state.groups.get(group, zero) for group, zero in returned.items()})
        spool = Spool(RunFolder(self.out).spool, number, self.config.codec)
        absent = self.collect(request, spool)
        phases = {"seconds": 0.0, "seconds_training": round(time.monotonic() - started, 3)}
        self.progress.enter(number, "averaging")
        replies = spool.replies()
        expelled = {reply.site: "expelled" for reply in replies if not self.sites.admitted(reply.node)}
        inside = [reply for reply in replies if reply.site not in expelled]
        refused, measures = judge(inside, like, parameters, self.config)
        refused |= expelled
        counted = [reply for reply in replies if reply.site not in refused]
        lines = absent | {reply.site: line_of(reply, refused, len(request.weights), self.config) for reply in replies}
        event: Event = {"event": "round", "round": number, **phases, "sites": dict(sorted(lines.items()))}
        for reply in replies:
            if reply.site in refused:
                spool.set_aside(reply, RunFolder(self.out).refused)
        if len(counted) < self.config.round.quorum:
            raise too_few(self.history, self.config, event, len(counted))
        if self.config.privacy.mechanism == "central":
            mean = self.private_mean(counted, state, event)
        else:
            mean = self.bounded_fold(counted, measures, like, event, parameters)
        state = self.next_state(state, counted, mean, parameters, event, parents)
        event["seconds"] = time.monotonic() - started  # the state's event, too
        names = [reply.site for reply in counted]
        self.audit.log_fold(number, names, state.coded, asked=state.asked, result=state.coded_result)
        save_state(self.out, state)
        spool.clear()
        return state

    def next_state(
        self,
        state: State,
        counted: list[Spooled],
        folded: dict[str, Tensor],
        parameters: list[str],
        event: Event,
        parents: dict[str, str],
    ) -> State:
        """What comes of the round of this `event`: the weights move by the update, and the groups as their method has
        them; each site that counted goes on from what it kept with its update.
        """
        update, groups = parted(folded)
        weights, optimizer = self.step(state, update, parameters)
        part = len(counted) / self.sites_of(event)
        moved = {reply.site: reply.sha256 for reply in counted} if kept_of(self.config) else {}
        return State(
            round=event["round"],
            weights=weights,
            optimizer=optimizer,
            groups=next_groups(self.config, state.groups, groups, part),
            parents=parents | moved,
            average=average_of_rounds(state.average, weights, self.config.strategy.average, event["round"]),
            codec=self.config.codec,
            event=event,
        )

    def request(self, number: int, weights: bytes, parents: dict[str, str]) -> Request:
        """Ask for training from, or evaluation of, these weights, with the states of `parents`."""
        return Request(run_id=self.run_id, round=number, config=self.config, weights=weights, parents=parents)

    def collect(self, request: Request, spool: Spool) -> dict[str, Event]:
        """Ask every drawn site that is there and not in the spool; spool the updates, return lines of the others."""
        nodes, absent = self.sites.roll(request.round, train=True)
        answered = {reply.site for reply in spool.replies() if self.sites.admitted(reply.node)}
        nodes = {site: node for site, node in nodes.items() if site not in answered}
        lines = {s: site_line(status=why.status, reason=why.reason) for s, why in absent.items() if s not in answered}
        evaluating = len(nodes) + sum(why is RESTS for why in absent.values()) if self.evaluates(request.round) else 0
        self.progress.start(request.round, len(nodes) + evaluating, answered)
        for site, answer in self.sites.ask("train", request, nodes):
            if isinstance(answer, Reply) and answer.status != "ok":
                answer = refusal(answer)
            if isinstance(answer, Absent):
                lines[site] = site_line(status=answer.status, reason=answer.reason, bytes_down=len(request.weights))
                self.progress.tick(f"round {request.round}: {site} {answer.status}: {answer.reason}")
            else:
                spool.add(site, answer, self.sites.ceiling(nodes[site]), nodes[site])
                self.progress.tick(f"round {request.round}: {site} trained")
        return lines

    def bounded_fold(
        self,
        counted: list[Spooled],
        measures: dict[str, Measures],
        like: dict[str, Tensor],
        event: Event,
        parameters: list[str],
    ) -> dict[str, Tensor]:
        """Fold updates that are bounded; note the bounds that were met in the round's `event`."""
        alone = self.sites_of(event) == 1  # whose federated training is local training
        sizes = None if alone else {name: like[name].numel() for name in parameters}
        norm = math.hypot(*(like[name].double().norm().item() for name in parameters))
        shares, lines = bounded(counted, measures, self.config, sizes, event["round"], norm, like)
        for site, line in lines.items():
            event["sites"][site] |= line
        if self.method.scales:
            factors = self.method.factors([reply.steps for reply in counted], [share.weight for share in shares])
            shares = scaled(shares, factors, parameters)
        return fold(shares, like, self.config.fold)

    def sites_of(self, event: Event) -> int:
        """How many sites take part, whether they counted in the round of this `event` or not."""
        invited = {site for site, line in event["sites"].items() if line["status"] != "not_invited" or rests(line)}
        return len(invited.union(self.config.round.expected))

    def private_mean(self, counted: list[Spooled], state: State, event: Event) -> dict[str, Tensor]:
        """Clip, add noise and note epsilon in the round's `event`."""
        privacy, number = self.config.privacy, state.round + 1
        try:
            sigma, event["epsilon"] = charge_sum(self.history, self.config, number)
        except BudgetError as error:
            raise spent(event, str(error)) from None
        updates = [reply.update().tensor for reply in counted]
        secret, sites = new_secret(privacy.test_seed, "sum", number), len(self.config.round.expected)
        return noisy_mean(updates, state.weights, privacy.clip, sigma, secret, sites)

    def step(
        self, state: State, mean: dict[str, Tensor], parameters: list[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Move the parameters by the optimiser, the floating buffers by their mean."""
        trained = {name: state.weights[name] for name in parameters}
        moved, optimizer = server_step(trained, mean, self.config.strategy, state.optimizer)
        weights = {name: moved[name] if name in moved else old + mean[name] for name, old in state.weights.items()}
        for name in weights:
            if name.endswith("running_var"):  # of BatchNorm: a coded update may take it below zero, which has no root
                weights[name] = weights[name].clamp(min=0)
        return weights, optimizer

    def measuring(self, state: State) -> Request:
        """Ask for evaluation of this state, where sites keep tensors with those of their own."""
        parents = state.parents if HOME in kept_of(self.config) else {}
        return self.request(state.round, state.coded_result, parents)

    def evaluates(self, number: int) -> bool:
        """Whether the sites evaluate after this round."""
        every = self.config.round.evaluate_every
        return every > 0 and (number % every == 0 or number == self.config.rounds)

    def finish(self, state: State) -> None:
        """Let the sites evaluate the new model, and write the round's line."""
        event, started = {**(state.event or {}), "global": None}, time.monotonic()
        if self.evaluates(state.round):
            request = self.measuring(state)
            event["global"], failed = evaluate(self.sites, self.config, request, event["sites"], self.progress)
            event |= {"evaluation_failed": failed} if failed else {}
        event["seconds_evaluating"] = round(time.monotonic() - started, 3)
        event["seconds"] = round(event["seconds"] + event["seconds_evaluating"], 3)
        keep_best(RunFolder(self.out), self.config, self.run_id, state, event)
        self.history.append(event)
        if self.page:
            write_page(self.out)
        asked = [site for site in event["sites"].values() if site["status"] != "not_invited"]
        counted = sum(site["status"] == "counted" for site in asked)
        score = (event["global"] or {}).get(headline := TASKS[self.config.task].headline)
        shown = "" if score is None else f", {headline} {figure(score, patients_behind(event))}"
        self.progress.finish(
            f"round {state.round}/{self.config.rounds}: {counted} of {quantity(len(asked), 'site')} counted{shown}, "
            f"{event['seconds']:.1f} s"
        )

    def close(self, state: State) -> None:
        """Leave the model of a run that has ended, and let the sites test it."""
        files = RunFolder(self.out)
        export_model(files, files.model, self.config, self.run_id, state)
        count_all_rounds(files, self.config)
        if self.config.data.test is None or final_test(self.history):
            return
        request = replace(self.measuring(state), part=PART)
        event = measure_test(self.sites, self.config, request, self.history, files, self.progress)
        self.history.append(event)
        for sentence in outcome_of(event, self.config):
            self.progress.finish(sentence)
