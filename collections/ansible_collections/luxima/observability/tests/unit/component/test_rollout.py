# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""With real processes, as the forks of one run are."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component.rollout import Rollout, Stopped


def _host(folder: Path, name: str, slots: int, fails: bool, log: Any) -> None:
    try:
        with Rollout(folder, "loki", slots).turn(name, queue=True):
            log.put(("in", name, time.monotonic()))
            time.sleep(0.15)
            log.put(("out", name, time.monotonic()))
            if fails:
                raise OSError("does not start")
    except Stopped as error:
        log.put(("stopped", name, str(error)))
    except OSError:
        pass


def play(folder: Path, slots: int, failing: str = "") -> list[tuple[str, str, Any]]:
    context = multiprocessing.get_context("fork")
    log = context.Queue()
    hosts = [
        context.Process(
            target=_host, args=(folder, f"h{i}", slots, f"h{i}" == failing or failing == "all", log)
        )
        for i in range(4)
    ]
    for process in hosts:
        process.start()
    for process in hosts:
        process.join(20)
    found = []
    while not log.empty():
        found.append(log.get(timeout=1))
        time.sleep(0.001)
    return found


def until(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def most_at_once(events: list[tuple[str, str, Any]]) -> int:
    inside, most = 0, 0
    for kind, _, _ in sorted(
        (event for event in events if event[0] != "stopped"), key=lambda event: event[2]
    ):
        inside += 1 if kind == "in" else -1
        most = max(most, inside)
    return most


def test_one_after_the_other(tmp_path: Path) -> None:
    events = play(tmp_path, 1)
    assert len(events) == 8
    assert most_at_once(events) == 1


def test_of_those_who_wait_the_first_of_the_inventory_is_next(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    order, go_on = context.Queue(), context.Event()

    def host(position: int) -> None:
        with Rollout(tmp_path, "loki", 1).turn(f"h{position}", queue=True, position=position):
            order.put(position)
            go_on.wait(20)

    hosts = [context.Process(target=host, args=(position,)) for position in (0, 3, 1, 2)]
    hosts[0].start()
    assert order.get(timeout=10) == 0
    for process, position in zip(hosts[1:], (3, 1, 2), strict=True):
        process.start()
        until((tmp_path / "loki" / f"waits-{position:06d}").exists)
    time.sleep(0.2)
    go_on.set()
    assert [order.get(timeout=10) for _ in hosts[1:]] == [1, 2, 3]
    for process in hosts:
        process.join(10)


def test_nobody_waits_for_a_host_whose_run_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")

    def host() -> None:
        with Rollout(tmp_path, "loki", 1).turn("h1", queue=True, position=1):
            pass

    with Rollout(tmp_path, "loki", 1).turn("h0", queue=True):
        killed = context.Process(target=host)
        killed.start()
        until((tmp_path / "loki" / "waits-000001").exists)
        killed.kill()
        killed.join()
    with Rollout(tmp_path, "loki", 1).turn("h2", queue=True, position=2):
        pass


def test_as_many_as_there_are_slots(tmp_path: Path) -> None:
    events = play(tmp_path, 2)
    assert len(events) == 8
    assert most_at_once(events) == 2


def test_the_first_failure_stops_the_rest(tmp_path: Path) -> None:
    events = play(tmp_path, 1, failing="all")
    entered = [name for kind, name, _ in events if kind == "in"]
    assert len(entered) == 1
    stopped = [words for kind, _, words in events if kind == "stopped"]
    assert stopped == [f"not attempted: roll-out stopped by {entered[0]}"] * 3


def test_the_host_that_failed_may_try_again(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path, "loki", 1)
    rollout.stop("h1")
    with pytest.raises(Stopped), rollout.turn("h2", queue=True):
        pass
    with rollout.turn("h1", queue=True):
        pass
    with rollout.turn("h2", queue=True):
        pass


def test_other_components_go_on(tmp_path: Path) -> None:
    Rollout(tmp_path, "loki", 1).stop("h1")
    with Rollout(tmp_path, "tempo", 1).turn("h2", queue=True):
        pass


def test_a_first_installation_does_not_wait(tmp_path: Path) -> None:
    with Rollout(tmp_path, "loki", 1).turn("h1", queue=True):
        start = time.monotonic()
        with Rollout(tmp_path, "loki", 1).turn("h2", queue=False):
            pass
        assert time.monotonic() - start < 1
