# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the measurements are to show."""

from __future__ import annotations

from dataclasses import dataclass

from bench.changes import STEP
from bench.rest import FOUR, LOGS_FOUR, LOGS_ONE, NAMES, ONE, names
from bench.runs import Json


@dataclass(frozen=True)
class Goal:
    """`value` must not be more than `limit`, or with `least` not less."""

    text: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit


def goals(report: Json) -> list[Goal]:
    """Every goal for which the report has the numbers."""
    rows = {(row["hosts"], row["case"]): row for row in report.get("nothing to change", [])}

    def minimum(hosts: str, case: str) -> float | None:
        row = rows.get((hosts, case))
        return float(row["minimum"]) if row else None

    found: list[Goal] = []
    ping, ours, empty = minimum(ONE, "ping"), minimum(ONE, "deploy"), minimum(ONE, "empty play")
    if ping is not None and ours is not None:
        found.append(Goal(f"{ONE}: s above a ping play", ours - ping, 2))
        found.append(Goal(f"{ONE}: task callbacks", rows[ONE, "deploy"]["tasks"], 20))
    sent = report.get("traffic", {}).get("deploy")
    if sent:
        found.append(Goal("requests per host", sent["requests"] / max(sent["hosts"], 1), 1))
        found.append(Goal("bytes of payload", sent["payload"], 0))
    for hosts in (ONE, FOUR):
        for case in ("plain tasks", "plain tasks, Mitogen", "the same, pyinfra"):
            theirs, mine = minimum(hosts, case), minimum(hosts, "deploy")
            if theirs is not None and mine is not None:
                found.append(Goal(f"{hosts}: times faster than {case}", theirs / mine, 5, least=True))
    plain = minimum(ONE, "plain tasks")
    if plain is not None and ours is not None and empty is not None:
        net = (plain - empty) / max(ours - empty, 0.001)
        found.append(
            Goal(f"{ONE}: times faster than plain tasks, both less an empty play", net, 15, least=True)
        )
    for hosts in (LOGS_ONE, LOGS_FOUR):
        theirs, mine = minimum(hosts, "grafana.grafana's roles"), minimum(hosts, "deploy")
        if theirs is not None and mine is not None:
            found.append(Goal(f"{hosts}: times faster than grafana.grafana", theirs / mine, 5, least=True))
    few, many = (minimum(names(count), "deploy") for count in NAMES[1:])
    if few is not None and many is not None:
        found.append(Goal(f"{NAMES[2]} hosts, 3 components: s", many, 6))
        found.append(Goal("s per added host", (many - few) / (NAMES[2] - NAMES[1]), 0.12))
    shares = {row["hosts"]: row["proportional MiB"] for row in report.get("forks", [])}
    if shares:
        first, last = (shares[names(count)] for count in (NAMES[0], NAMES[-1]))
        found.append(Goal(f"memory of a fork, {NAMES[-1]} hosts against {NAMES[0]}", last / first, 1.1))
    return [*found, *_of_changes(report.get("changes", {}))]


def _of_changes(report: Json) -> list[Goal]:
    found = []
    for row in report.get("changes", []):
        floor = report["ping"]["median"]
        bare = row.get("bare restart")
        over = row["until it shows"]["median"] - floor - (bare["median"] if bare else 0)
        than = "ping and start-up" if bare else "ping"
        found.append(Goal(f"{row['change']}: s until it shows, above {than}", over, 1.5))
        if bare:
            limit = row["its silence"]["median"] * 1.1 + STEP
            found.append(Goal(f"{row['change']}: s of silence", row["longest silence"]["median"], limit))
        else:
            found.append(Goal(f"{row['change']}: questions unanswered", row["unanswered"], 0))
    exporter = [row for row in report.get("changes", []) if row["change"].startswith("node exporter")]
    if exporter and "revert" in report:
        limit = exporter[0]["its silence"]["median"] * 1.1 + STEP
        found.append(
            Goal("revert: s of silence at a time", report["revert"]["longest silence"]["median"], limit)
        )
    return found
