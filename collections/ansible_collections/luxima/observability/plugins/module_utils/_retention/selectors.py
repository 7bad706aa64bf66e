# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Stream selectors of Loki: `{log_class="audit", service=~"a|b"}`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_MATCHER = re.compile(r"""\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|`[^`]*`)\s*""")
_LITERALS = re.compile(r"[A-Za-z0-9_.:/-]+(?:\|[A-Za-z0-9_.:/-]+)*")


@dataclass(frozen=True)
class Matcher:
    label: str
    operator: str
    value: str

    def matches(self, value: str) -> bool:
        if self.operator in ("=", "!="):
            return (value == self.value) == (self.operator == "=")
        return bool(re.fullmatch(self.value, value)) == (self.operator == "=~")

    def values(self) -> set[str] | None:
        """All values this matcher lets through, or None when that set is not finite or not plain to see."""
        if self.operator == "=":
            return {self.value}
        if self.operator == "=~" and _LITERALS.fullmatch(self.value) and "." not in self.value:
            return set(self.value.split("|"))
        return None

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{json.dumps(self.value, ensure_ascii=False)}"


def parse(text: str) -> list[Matcher]:
    """The matchers of a selector. Raises ValueError saying what is wrong with it."""
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}")):
        raise ValueError(f'{text!r} is no stream selector; write {{label="value"}} without filters')
    found: list[Matcher] = []
    position, end = 1, len(body) - 1
    while position < end:
        match = _MATCHER.match(body, position, end)
        if match is None:
            raise ValueError(
                f'{text!r} cannot be read at {body[position:end]!r}; matchers are label="value" with = != =~ !~'
            )
        label, operator, quoted = match.groups()
        value = quoted[1:-1] if quoted.startswith("`") else str(json.loads(quoted.replace("\\'", "'")))
        if operator in ("=~", "!~"):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{text!r}: {value!r} is no regular expression ({error})") from None
        found.append(Matcher(label, operator, value))
        position = match.end()
        if position < end:
            if body[position] != ",":
                raise ValueError(f"{text!r} needs a comma before {body[position:end]!r}")
            position += 1
    if all(matcher.matches("") for matcher in found):
        raise ValueError(
            f"{text!r} matches streams without the label too; Loki wants one matcher that does not match the empty value"
        )
    return found


def render(matchers: list[Matcher]) -> str:
    return "{" + ", ".join(str(matcher) for matcher in matchers) + "}"


def may_overlap(left: list[Matcher], right: list[Matcher]) -> bool:
    """Whether one stream could match both. Only a proof of the contrary gives False."""
    for mine in left:
        for other in (matcher for matcher in right if matcher.label == mine.label):
            mine_values, other_values = mine.values(), other.values()
            if mine_values is not None and not any(other.matches(value) for value in mine_values):
                return False
            if other_values is not None and not any(mine.matches(value) for value in other_values):
                return False
    return True
