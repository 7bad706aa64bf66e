# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What happens to which secret, and what is refused."""

from __future__ import annotations

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._secrets import declared, plan
from ansible_collections.luxima.observability.plugins.module_utils._secrets.plan import Held, Wish

SECRETS = declared.parse(
    "store",
    {
        "store_key": {"protects": "stored_data", "length": 32, "consumers": ["store"]},
        "store_password": {"protects": "login", "length": 24, "consumers": ["store"]},
        "store_secret": {
            "protects": "connection",
            "length": 40,
            "name": "store_access",
            "consumers": ["store", "reader"],
        },
        "store_token": {"protects": "login", "consumers": ["store"]},
        "store_environment": {"protects": "connection", "form": "structure", "consumers": ["store"]},
    },
)
OWN = Held("a value of ours", "own", vaulted=True)
EXAMPLE = Held("example-value", "example", vaulted=True)
PUBLIC = Held("a value of ours", "example", vaulted=True)
LOOKED_UP = Held(elsewhere=True)


def verbs(held: dict[str, Held], wish: Wish, **elsewhere: str) -> dict[str, str]:
    return {step.variable: step.verb for step in plan.plan(SECRETS, held, elsewhere, wish)}


def test_without_a_wish_only_what_is_missing_is_made() -> None:
    assert verbs({"store_key": OWN, "mine": OWN}, Wish()) == {
        "store_key": "keep",
        "store_password": "make",
        "store_secret": "make",
        "mine": "keep",
    }


def test_what_is_set_elsewhere_is_not_made_a_second_time() -> None:
    found = verbs({}, Wish(replace=True), store_key="group_vars/minio.yml:3", store_secret="the inventory")
    assert found == {"store_key": "keep", "store_password": "make", "store_secret": "keep"}


@pytest.mark.parametrize(
    ("variable", "held", "verb"),
    [
        ("store_key", OWN, "keep"),
        ("store_key", Held(None, "lost", vaulted=True), "keep"),
        ("store_key", Held("in clear text"), "keep"),
        ("store_key", LOOKED_UP, "keep"),
        ("store_key", EXAMPLE, "make"),
        ("store_key", PUBLIC, "encrypt again"),
        ("store_password", OWN, "make"),
        ("store_password", LOOKED_UP, "keep"),
        ("store_secret", OWN, "make"),
        ("store_token", OWN, "keep"),
        ("store_token", PUBLIC, "encrypt again"),
        ("mine", OWN, "keep"),
        ("mine", PUBLIC, "keep"),
    ],
)
def test_replacing_all_spares_stored_data_and_what_is_not_ours(variable: str, held: Held, verb: str) -> None:
    assert verbs({variable: held}, Wish(replace=True))[variable] == verb


@pytest.mark.parametrize(
    "wish", [Wish(rotate=frozenset(["store_key"])), Wish(given={"store_key": "another"})]
)
def test_a_key_of_stored_data_is_not_made_anew_by_name_either(wish: Wish) -> None:
    with pytest.raises(plan.WishError, match=r"store_key is a key of stored data: .*docs/secrets.md"):
        plan.plan(SECRETS, {"store_key": OWN}, {}, wish)


def test_when_the_data_was_moved_it_is() -> None:
    assert verbs({"store_key": OWN}, Wish(rotate=frozenset(["store_key"]), moved=True))["store_key"] == "make"
    assert verbs({"store_key": OWN}, Wish(replace=True, moved=True))["store_key"] == "make"


@pytest.mark.parametrize(
    ("name", "held", "elsewhere", "why"),
    [
        ("store_pasword", {}, {}, "did you mean store_password"),
        ("store_environment", {}, {}, "no secret that is made here"),
        ("store_token", {"store_token": OWN}, {}, "issued by somebody else"),
        ("store_secret", {"store_secret": LOOKED_UP}, {}, "rotate it where it is kept"),
        ("store_secret", {}, {"store_secret": "a.yml:3"}, r"set elsewhere \(a.yml:3\)"),
    ],
)
def test_a_name_that_cannot_be_rotated_is_refused(
    name: str, held: dict[str, Held], elsewhere: dict[str, str], why: str
) -> None:
    with pytest.raises(plan.WishError, match=why):
        plan.plan(SECRETS, held, elsewhere, Wish(rotate=frozenset([name])))


def test_a_given_value_is_written_and_the_same_one_is_not() -> None:
    assert verbs({"store_token": OWN}, Wish(given={"store_token": "new"}))["store_token"] == "give"
    assert (
        verbs({"store_token": OWN}, Wish(given={"store_token": "a value of ours"}))["store_token"] == "keep"
    )


def test_a_pair_gets_a_new_name_unless_somebody_says_it_elsewhere() -> None:
    steps = plan.plan(SECRETS, {"store_secret": OWN}, {}, Wish(rotate=frozenset(["store_secret"])))
    made = [step for step in steps if step.writes and step.variable == "store_secret"]
    assert plan.new_names(made, SECRETS, {}) == {"store_access": "store_secret"}
    assert plan.new_names(made, SECRETS, {"store_access": "group_vars/all/a.yml:1"}) == {}


def test_no_reason_holds_a_value() -> None:
    wishes = [Wish(), Wish(replace=True), Wish(given={"store_token": "a value of ours 2"})]
    told = [
        step.why for wish in wishes for step in plan.plan(SECRETS, dict.fromkeys(SECRETS, PUBLIC), {}, wish)
    ]
    assert not [words for words in told if "a value of ours" in words]


@pytest.mark.parametrize(
    "entry",
    [
        {"protects": "everything", "consumers": ["x"]},
        {"protects": "login"},
        {"protects": "login", "consumers": ["x"], "lenght": 3},
        {"protects": "login", "consumers": ["x"], "name": "x"},
        {"protects": "login", "consumers": ["x"], "length": True},
        {"protects": "connection", "consumers": ["x"], "form": "structure", "length": 3},
        "login",
    ],
)
def test_a_wrong_declaration_is_refused(entry: object) -> None:
    with pytest.raises(declared.DeclarationError, match=r"role x: meta/secrets\.yml: y: "):
        declared.parse("x", {"y": entry})
