# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What happens to each secret of an environment, and why. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from . import examples
from .declared import STORED_DATA, Secret

KEEP, MAKE, GIVE, AGAIN = "keep", "make", "give", "encrypt again"
COPIED = (
    "what it protects cannot be read with another one, and its server holds one at a time. Copy the data first: docs/secrets.md, "
    "'A key of stored data'"
)


class WishError(ValueError):
    """Something was asked for that must not be done; the message says why, and the way out."""


@dataclass(frozen=True)
class Held:
    """A variable as the file has it. `clear` is None when it cannot be decrypted here, `label` the vault identity."""

    clear: str | None = None
    label: str = ""
    vaulted: bool = False
    # A lookup, or something else than one text: the value is kept elsewhere.
    elsewhere: bool = False

    @property
    def example(self) -> bool:
        return self.clear is not None and examples.is_example(self.clear)


@dataclass(frozen=True)
class Wish:
    """What a run was asked for. `given`: values by name; `moved`: what stored-data keys protect is copied, or nothing is stored."""

    replace: bool = False
    rotate: frozenset[str] = frozenset()
    given: Mapping[str, str] = field(default_factory=dict)
    moved: bool = False


@dataclass(frozen=True)
class Step:
    """What happens to one secret. `why` is told; it never holds a value."""

    variable: str
    verb: str
    why: str

    @property
    def writes(self) -> bool:
        return self.verb != KEEP


def plan(
    declared: Mapping[str, Secret], held: Mapping[str, Held], written: Mapping[str, str], wish: Wish
) -> list[Step]:
    """The steps for every secret that is declared or in the file; `written`: name -> the other place of the inventory that sets it.

    Raises WishError before anything is done.
    """
    _check_names(declared, wish)
    halves = {secret.name: secret.variable for secret in declared.values() if secret.name}
    steps = [
        step
        for secret in declared.values()
        if (step := _one(secret, held.get(secret.variable), written.get(secret.variable, ""), wish))
    ]
    steps += [
        Step(name, KEEP, f"the public half of {halves[name]}" if name in halves else "yours")
        for name in held
        if name not in declared
    ]
    return steps


def _check_names(declared: Mapping[str, Secret], wish: Wish) -> None:
    for name in sorted(wish.rotate):
        if name not in declared or declared[name].form != "text":
            known = sorted(one.variable for one in declared.values() if one.length)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise WishError(f"platform_secrets_rotate: {name} is no secret that is made here; {hint}")


def _one(secret: Secret, held: Held | None, written: str, wish: Wish) -> Step | None:
    name = secret.variable
    if name in wish.given and secret.form == "text":
        return _given(secret, held, wish)
    if name in wish.rotate:
        return _rotated(secret, held, written, wish)
    if held is None:
        if written:
            return Step(name, KEEP, f"it is set elsewhere ({written})")
        return Step(name, MAKE, "it was missing") if secret.length else None
    if not wish.replace:
        return Step(name, KEEP, _kept(secret, held))
    if held.elsewhere:
        return Step(name, KEEP, "its value is looked up: rotate it where it is kept")
    if secret.length and (secret.protects != STORED_DATA or held.example or wish.moved):
        return Step(name, MAKE, _made(secret, held))
    if held.vaulted and held.label == examples.IDENTITY and held.clear is not None:
        why = "it protects stored data" if secret.protects == STORED_DATA else "somebody else issues it"
        return Step(
            name, AGAIN, f"{why}, so its value stays; the password of the examples opens it no longer"
        )
    return Step(name, KEEP, _kept(secret, held))


def _given(secret: Secret, held: Held | None, wish: Wish) -> Step:
    name = secret.variable
    if held is not None and held.clear == wish.given[name]:
        again = wish.replace and held.label == examples.IDENTITY
        return Step(name, AGAIN if again else KEEP, "it is the given one already")
    _refuse_stored(secret, held, wish)
    return Step(name, GIVE, "the given value")


def _rotated(secret: Secret, held: Held | None, written: str, wish: Wish) -> Step:
    name = secret.variable
    if not secret.length:
        raise WishError(
            f"platform_secrets_rotate: {name} is issued by somebody else; have a new one issued and give it with -e {name}=<value>, "
            "or in a file with -e @<file>"
        )
    if held is not None and held.elsewhere:
        raise WishError(
            f"platform_secrets_rotate: the value of {name} is looked up; rotate it where it is kept"
        )
    if held is None and written:
        raise WishError(
            f"platform_secrets_rotate: {name} is set elsewhere ({written}); rotate it there, or take it out there first"
        )
    _refuse_stored(secret, held, wish)
    return Step(name, MAKE, _made(secret, held) if held else "it was missing")


def _refuse_stored(secret: Secret, held: Held | None, wish: Wish) -> None:
    if secret.protects == STORED_DATA and held is not None and not held.example and not wish.moved:
        raise WishError(
            f"{secret.variable} is a key of stored data: {COPIED}. When that is done, or nothing is stored with it, "
            "add -e platform_secrets_data_moved_confirmed=<platform_environment>. Nothing was written"
        )


def _made(secret: Secret, held: Held) -> str:
    if secret.protects == STORED_DATA:
        if held.example:
            return "everybody knows the example; if data is stored with it, site.yml refuses and says how to go on"
        return "what it protects was copied, or is not there"
    pair = (
        f", with a new {secret.name}; the former pair opens its bucket until minio_retire_former_keys is true"
        if secret.name
        else ""
    )
    return f"as asked{pair}"


def _kept(secret: Secret, held: Held) -> str:
    words = {STORED_DATA: "it protects stored data"}.get(secret.protects, "it is there")
    if held.elsewhere:
        words += "; its value is looked up"
    elif held.example:
        words += "; it is an example, which everybody knows"
    elif not held.vaulted and held.label == "":
        words += "; in clear text"
    return words


def new_names(
    steps: Iterable[Step], declared: Mapping[str, Secret], pinned: Mapping[str, str]
) -> dict[str, str]:
    """Variable of a public half -> the secret that gets a new one with it; not where another place of the inventory says it."""
    return {
        declared[step.variable].name: step.variable
        for step in steps
        if step.verb == MAKE and declared[step.variable].name and declared[step.variable].name not in pinned
    }
