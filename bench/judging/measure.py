"""Runs every case: checks that all servers answer the same, tunes the peers, then lets all take their turns.

Only the server that is measured runs; the others are paused. Runs on the main thread.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.judging.answers import Scores, check_same
from bench.judging.cases import Case, Who
from bench.judging.forward import per_second
from bench.judging.peers import Environments, Setting
from bench.judging.servers import Server, start_ours
from bench.judging.traffic import Client, Load, drive

CLIENTS = 16
WARM_UP_S = 0.5
CHECKED = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        quick: Fewer settings of the peers are tried.
        repeats: Rounds over all servers.
        seconds: Of each server in each round.
        tuning_s: Of each setting of a peer.
    """

    quick: bool
    repeats: int
    seconds: float
    tuning_s: float


FULL = Plan(quick=False, repeats=7, seconds=7.0, tuning_s=3.0)
QUICK = Plan(quick=True, repeats=1, seconds=4.0, tuning_s=2.0)


class Bench:
    """One run of everything.

    Attributes:
        not_run: Why a peer was not measured, by case and peer.
    """

    def __init__(self, plan: Plan, environments: Environments, *, with_infinity: bool, workdir: Path) -> None:
        """Take what the servers need and a folder for what they write."""
        self._plan = plan
        self._environments = environments
        self._with_infinity = with_infinity
        self._workdir = workdir
        self.not_run: dict[str, str] = {}

    def measure(self, cases: list[Case]) -> None:
        """Measure all cases; a peer that fails is left out and told in `not_run`.

        Raises:
            RuntimeError: Ours does not start or does not answer.
        """
        with start_ours(self._environments.models, self._workdir, self._environments.threads) as ours:
            for case in cases:
                expected = self._scores(case, "ours", ours)
                with contextlib.ExitStack() as stack:
                    running: dict[Who, Server] = {"ours": ours}
                    for who, find in self._peers(case).items():
                        try:
                            running[who] = stack.enter_context(self._start_best(case, who, find(), expected))
                        except (RuntimeError, OSError) as error:
                            self.not_run[f"{case.name}: {who}"] = str(error)
                            progress(f"{case.name}: {who} not run: {error}")
                    self._take_turns(case, running)

    def _peers(self, case: Case) -> dict[Who, Callable[[], list[Setting]]]:
        quick = self._plan.quick
        peers: dict[Who, Callable[[], list[Setting]]] = {
            "litserve": lambda: self._environments.litserve(case.endpoint, quick=quick)
        }
        if self._with_infinity and case.infinity_questions:
            peers["infinity"] = lambda: self._environments.infinity(quick=quick)
        return peers

    def _start_best(self, case: Case, who: Who, settings: list[Setting], expected: list[Scores]) -> Server:
        """Try all settings of a peer one after the other, and start the best one again."""
        rates: dict[Setting, float] = {}
        for setting in settings:
            with setting.start() as server:
                for theirs, ours in zip(self._scores(case, who, server), expected, strict=True):
                    check_same(who, theirs, ours)
                rates[setting] = self._drive(case, who, server, 0, self._plan.tuning_s).per_second
            progress(f"{case.name}: tuning: {setting.name}: {rates[setting]:.1f}/s")
        best = max(settings, key=rates.__getitem__)
        case.settings[who] = best.name
        return best.start()

    def _take_turns(self, case: Case, running: dict[Who, Server]) -> None:
        for repeat in range(self._plan.repeats):
            # another part of the questions each time: what was unique must not be known already
            first = len(case.questions) * repeat // self._plan.repeats
            # The machine's speed wanders: the forward alone is measured before ours and after it.
            before = self._bare_per_second(case)
            self._measure(case, "ours", running["ours"], first)
            case.bare_per_second.append(statistics.harmonic_mean([before, self._bare_per_second(case)]))
            for who, server in running.items():
                if who != "ours":
                    self._measure(case, who, server, first)

    def _bare_per_second(self, case: Case) -> float:
        return per_second(case.bare, seconds=self._plan.seconds / 4)

    def _measure(self, case: Case, who: Who, server: Server, first: int) -> None:
        load = self._drive(case, who, server, first, self._plan.seconds)
        case.loads.setdefault(who, []).append(load)
        progress(f"{case.name}: {who}: {load.per_second:.1f}/s")

    def _scores(self, case: Case, who: Who, server: Server) -> list[Scores]:
        """Return the answers to the last questions, which no load gets to."""
        with server.awake(), contextlib.closing(Client(server.port)) as client:
            questions = case.questions_for(who)
            numbers = range(len(questions) - CHECKED, len(questions))
            return [case.read(who, number, client.ask(questions[number])) for number in numbers]

    def _drive(self, case: Case, who: Who, server: Server, first: int, seconds: float) -> Load:
        questions = case.questions_for(who)
        with server.awake():
            drive(server.port, questions[-CLIENTS:], clients=CLIENTS, seconds=WARM_UP_S)
            return drive(server.port, questions[first:] + questions[:first], clients=CLIENTS, seconds=seconds)


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)
