# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What stands beside guests (pools, backup jobs, firewalls, templates): one way to bring any of them about.

Look, plan, write one thing, look again, until nothing is left to write. So a change by somebody else, a reply that was
lost and an object that appeared meanwhile are all answered by the same next look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from .client import Client, Settings
from .cluster import located
from .errors import Absent, Conflict, Failed, ProxmoxError, Unanswered, Unreachable
from .model import Guest
from .patience import Patience
from .report import Report
from .survey import Stock

S = TypeVar("S")

WORKERS = 8
#: Seconds a request may still be under way after its reply was lost.
GRACE = 3.0
#: Seconds to wait for what others hold locked.
PATIENCE = 180.0
#: How often somebody else's changes are answered before they are called a fight.
SURPRISES = 8
#: Seconds in which a change that the server took has to be seen. Nothing is asked for twice.
SEEN = 3.0


@dataclass(frozen=True)
class Write:
    """One request that changes something. ``task``: type of the worker it starts, ``seconds`` that it may take."""

    action: str
    method: str
    path: str
    data: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    seconds: float = 60.0
    #: A local file that is sent along, as ``filename``.
    upload: str = ""


@dataclass(frozen=True)
class Course:
    """The way from what is to what is wanted. Only the first of ``writes`` is carried out before the next look.

    ``before`` and ``after`` hold managed values only; ``refusals`` say why nothing may be done.
    """

    writes: tuple[Write, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def actions(self) -> list[str]:
        return list(dict.fromkeys(write.action for write in self.writes))

    def difference(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Before and after, reduced to what differs."""
        keys = [key for key in {**self.before, **self.after} if self.before.get(key) != self.after.get(key)]
        return (
            {key: self.before[key] for key in keys if key in self.before},
            {key: self.after[key] for key in keys if key in self.after},
        )


class Companion(Protocol[S]):
    """One managed object. ``label`` says what it is in messages, ``name`` is its key in the result."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    def look(self, client: Client) -> S:
        """Its present state; reads only."""

    def plan(self, have: S) -> Course:
        """Pure."""

    def lacks(self, stock: Stock, have: S) -> Iterable[str]:
        """What the hypervisor lacks to carry out the plan: storages, privileges. Asked only when there is one."""


@dataclass
class _Case(Generic[S]):
    thing: Companion[S]
    have: S
    course: Course
    actions: list[str] = field(default_factory=list)
    upids: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0
    stage: int = 0

    def look(self, client: Client) -> S:
        """Its present state; a guest that moved to another node meanwhile is followed."""
        self.thing, found = looked(client, self.thing)
        return found


def looked(client: Client, thing: Companion[S]) -> tuple[Companion[S], S]:
    """The state of an object, and the object, whose guest may have moved to another node."""
    try:
        return thing, thing.look(client)
    except Absent:
        guest = getattr(thing, "guest", None)
        if not isinstance(guest, Guest) or not is_dataclass(thing) or isinstance(thing, type):
            raise
        found = located(client, guest)
        if found is None or found.node == guest.node:
            raise
        moved: Companion[S] = replace(thing, guest=found)
        return moved, moved.look(client)


def _not_kept(thing: Companion[Any], course: Course) -> str:
    """Why a change is not asked for once more."""
    before, after = course.difference()
    return (
        f"{thing.label}: the server took every change, but reads back {before} instead of {after}: write the value as the "
        "server keeps it, or find out who changes it back"
    )


class Runner:
    """Brings companions about. What is missing for any of them is told before the first is touched."""

    def __init__(self, settings: Settings, workers: int = WORKERS) -> None:
        self._settings = settings
        self._workers = workers
        self._threads = threading.local()
        self.warnings: list[str] = []

    @property
    def client(self) -> Client:
        """This thread's session: they are not thread-safe."""
        if not hasattr(self._threads, "client"):
            self._threads.client = Client(self._settings)
        client: Client = self._threads.client
        return client

    def run(self, check: bool, *stages: Sequence[Companion[Any]]) -> Report:
        """Stage by stage, what is in one side by side; after a failure later stages are left alone.

        Failed is raised for what keeps all from being touched; a single failure is in the report.
        """
        cases = self._survey([(number, thing) for number, stage in enumerate(stages) for thing in stage])
        failed = False
        for number in range(0 if check else len(stages)):
            mine = [case for case in cases if case.stage == number and case.course.writes]
            if failed:
                for case in mine:
                    case.error = f"{case.thing.label}: left alone, because something before it failed"
                continue
            self._each(self._converge, mine)
            failed = any(case.error for case in cases if case.stage == number)
        return self._report(cases, check)

    def _each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        if not items:
            return []
        with ThreadPoolExecutor(min(self._workers, len(items))) as pool:
            return list(pool.map(work, items))

    def _survey(self, things: Sequence[tuple[int, Companion[Any]]]) -> list[_Case[Any]]:
        def look(entry: tuple[int, Companion[Any]]) -> _Case[Any] | str:
            stage, thing = entry
            try:
                thing, have = looked(self.client, thing)
            except (Unreachable, Unanswered) as error:
                # What is on other nodes does not wait for this one.
                return _Case(thing, None, Course(), error=str(error), stage=stage)
            except ProxmoxError as error:
                return str(error)
            course = thing.plan(have)
            return _Case(thing, have, course, warnings=course.warnings, stage=stage)

        found = self._each(look, things)
        faults = [entry for entry in found if isinstance(entry, str)]
        cases = [entry for entry in found if not isinstance(entry, str)]
        faults += [f"{case.thing.label}: {refusal}" for case in cases for refusal in case.course.refusals]
        planned = [case for case in cases if case.course.writes]
        if planned and not faults:
            stock = Stock(self.client, self._settings.identity)
            lacking: dict[str, list[str]] = {}
            for case in planned:
                for fault in filter(None, self._lacking(case, stock)):
                    lacking.setdefault(fault, []).append(case.thing.name)
            faults += [f"{fault} (for {', '.join(dict.fromkeys(who))})" for fault, who in lacking.items()]
        if faults:
            listing = "\n".join(f"- {fault}" for fault in dict.fromkeys(faults))
            raise Failed(f"nothing was changed, because of this:\n{listing}")
        return cases

    def _lacking(self, case: _Case[Any], stock: Stock) -> list[str]:
        """What is missing for an object; a guest that moved since it was looked at is asked about where it is."""
        try:
            return list(case.thing.lacks(stock, case.have))
        except Absent:
            case.have = case.look(self.client)
            return list(case.thing.lacks(stock, case.have))

    # -- one object

    def _converge(self, case: _Case[Any]) -> None:
        began = time.monotonic()
        try:
            self._follow(case)
        except ProxmoxError as error:
            case.error = str(error)
        case.seconds = round(time.monotonic() - began, 2)

    def _follow(self, case: _Case[Any]) -> None:
        course, surprises, end = case.course, 0, 0.0
        while course.writes:
            write, left, taken = course.writes[0], len(course.writes), False
            try:
                self._carry_out(case, write)
                surprises, end, taken = 0, 0.0, True
            except (Conflict, Absent) as trouble:
                reason = trouble.reason if isinstance(trouble, Conflict) else "absent"
                end = end or time.monotonic() + PATIENCE
                surprises += reason != "lock"
                if surprises > SURPRISES or time.monotonic() > end:
                    raise
                if reason == "lost":
                    if self._arrived(case, write):
                        case.actions.append(write.action)
                else:
                    time.sleep(1.0 if reason == "lock" else 0.05 * surprises)
            case.have = case.look(self.client)
            course = case.thing.plan(case.have)
            if taken:
                course = self._shorter(case, course, left)
            if course.refusals:
                raise Failed(f"{case.thing.label}: {'; '.join(course.refusals)}")
            case.warnings = course.warnings

    def _shorter(self, case: _Case[Any], course: Course, left: int) -> Course:
        """The way that is left after a change, which must be shorter than the ``left`` steps before it.

        Else the server keeps the value in another form, or somebody takes it back: asking again would never end.
        """
        patience = Patience(SEEN)
        while len(course.writes) >= left and not course.refusals:
            if not patience.again():
                raise Failed(_not_kept(case.thing, course))
            case.have = case.look(self.client)
            course = case.thing.plan(case.have)
        return course

    def _carry_out(self, case: _Case[Any], write: Write) -> None:
        subject = f"{case.thing.label}: {write.action}"
        if write.upload:
            answer = self.client.upload(write.path, subject, write.upload, **write.data)
        else:
            answer = self.client.write(write.method, write.path, subject, **write.data)
        if write.task:
            case.upids.append(str(answer))
            self.warnings += self.client.wait(answer, subject, write.seconds)
        case.actions.append(write.action)

    def _arrived(self, case: _Case[Any], write: Write) -> bool:
        """Whether a request without a reply took effect: its task, or another plan than before, tells."""
        patience = Patience(GRACE)
        while True:
            if write.task:
                node = write.path.split("/")[1]
                rows = self.client.get(
                    f"nodes/{node}/tasks", case.thing.label, source="active", typefilter=write.task
                )
                for row in rows:
                    self.client.wait(row["upid"], case.thing.label, write.seconds)
            writes = case.thing.plan(case.look(self.client)).writes
            if not writes or writes[0] != write:
                return True
            if not patience.again():
                return False

    # -- the answer

    def _report(self, cases: Sequence[_Case[Any]], check: bool) -> Report:
        report = Report(warnings=list(self.warnings))
        for case in cases:
            name, course = case.thing.name, case.course
            actions = course.actions if check else list(dict.fromkeys(case.actions))
            report.objects[name] = {
                "actions": actions,
                "before": dict(course.before),
                "after": dict(course.after),
                "changed": bool(actions),
                "upids": case.upids,
                "seconds": case.seconds,
            }
            report.warnings += [f"{case.thing.label}: {warning}" for warning in case.warnings]
            if case.error:
                report.failures.append(case.error)
            if actions:
                before, after = course.difference()
                report.diff.append(
                    {"before_header": name, "after_header": name, "before": before, "after": after}
                )
        return report
