"""Events of runs that nobody trained, to draw and to tabulate."""

from typing import Any

from gliofed.server.round.history import site_line

Event = dict[str, Any]


def counted(loss: float | None, patients: int = 1, **known: Any) -> Event:
    return site_line(status="counted", patients=patients, train={"loss": loss}, **known)


def event(number: int, sites: Event, total: Event | None = None, kind: str = "round") -> Event:
    known = {"event": kind, "round": number, "seconds": 1.0, "sites": sites}
    return known | ({"reason": "1 update counted"} if kind == "round_failed" else {"global": total})


def run(rounds: int, sites: int = 2) -> list[Event]:
    """A run where everything goes well, with an interval about its metric."""
    lines = {f"site-{n}": counted(1.0 / n) for n in range(1, sites + 1)}
    total = {"loss": 0.5, "dice": 0.6, "dice_low": 0.4, "dice_high": 0.7}
    rounds_of = [event(n, lines, total) for n in range(1, rounds + 1)]
    return [{"event": "start"}, *rounds_of, {"event": "end", "status": "done"}]


REFUSED = site_line(status="refused", reason="not finite: w", patients=9, train={"loss": 7.0})
DROPPED = site_line(status="dropped")
ODD = [
    {"event": "start"},
    event(1, {"a": counted(1.0, 1), "b": counted(3.0, 3)}),
    event(2, {"a": counted(2.0, 5), "b": REFUSED}, {"dice": 0.25, "loss": None}),
    event(3, {"a": counted(None, 5), "b": DROPPED}, {"dice": None, "loss": 0.5}),
    event(4, {"a": counted(4.0, 0), "b": counted(2.0, 1)}, {}),
    event(5, {"a": site_line(status="counted", patients=2), "b": counted(6.0)}, {"dice": 0.5}),
    event(6, {"a": counted(9.0)}, kind="round_failed"),
    {"event": "resume"},
]
"""A site that is refused, one that drops out, gaps in every value, and a round without a model."""


def scored(value: float, **known: Any) -> Event:
    """A line of a site that trained and has this Dice, of four patients."""
    return counted(1.0, 10, evaluate={"loss": 1 - value, "dice": value, "dice_et": value / 2}, evaluated=4, **known)


def full_run() -> list[Event]:
    """A private run from given weights, with a test at its end: everything that a history can hold."""
    total = {"loss": 0.5, "dice": 0.5, "dice_et": 0.25}
    rest = site_line(status="not_invited", reason="not drawn this round", evaluate={"dice": 0.5}, evaluated=4)
    first = {"a": scored(0.5, share=0.75, epsilon=1.0), "b": scored(0.25, share=0.25, epsilon=0.5), "c": rest}
    second = {"a": scored(0.75, share=1.0, epsilon=2.0, size=3.0, clipped=0.5), "b": REFUSED, "c": rest}
    given = {"a": {"status": "counted", "reason": None, "evaluate": {"dice": 0.125}, "evaluated": 4}}
    tested = {"a": {"status": "measured", "reason": None, "evaluate": {"dice": 0.375}, "evaluated": 2, "bytes_down": 5}}
    models = {"last": {"round": 2, "sites": tested, "global": {"dice": 0.375}}}
    models["best"] = {"round": 1, "sites": tested, "global": {"dice": 0.4375}}
    return [
        {"event": "start"},
        {"event": "initial", "round": 0, "seconds": 1.0, "sites": given, "global": {"dice": 0.125}},
        event(1, first, total),
        event(2, {"a": site_line(status="late", bytes_down=5)}, kind="round_failed"),
        event(2, second, total | {"dice": 0.625}),
        {"event": "test", "round": 2, "seconds": 2.0, "best_round": 1, "models": models},
        {"event": "end", "status": "incomplete"},
    ]
