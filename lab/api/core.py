# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""From a request to its handler: schema, privileges, result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab import schema
from lab.access import Identity
from lab.cluster import Cluster
from lab.errors import ApiError


@dataclass(frozen=True)
class Request:
    """A checked request: `params` has the types of the schema and includes those of the path."""

    cluster: Cluster
    who: Identity
    params: dict[str, Any]

    @property
    def node(self) -> str:
        return self.cluster.node(str(self.params["node"]))


Handler = Callable[[Request], Any]
ROUTES: dict[tuple[str, str], Handler] = {}


def route(verb: str, path: str) -> Callable[[Handler], Handler]:
    """Register a handler; the path must be one of the schema."""
    if schema.load().method(path, verb) is None:
        raise LookupError(f"{verb} {path} is not in the API schema")

    def register(handler: Handler) -> Handler:
        ROUTES[verb, path] = handler
        return handler

    return register


def dispatch(
    cluster: Cluster, identify: Callable[[bool], Identity], verb: str, path: str, values: dict[str, Any]
) -> Any:
    """Run the method of `path`. `identify(world)` says who asks; world: nobody needs to log in for it."""
    found = schema.load().resolve(path)
    method = schema.load().method(found[0], verb) if found else None
    if found is None or method is None:
        # Only those who are logged in learn what exists.
        identify(False)
        raise ApiError(501, f"Method '{verb} {path}' not implemented")
    who = identify(method.permissions.get("user") == "world")
    params = method.check({**values, **found[1]})
    if verb != "GET":
        params = cluster.faults.kept(params)
    handler = ROUTES.get((verb, found[0]))
    if handler is None:
        raise ApiError(501, f"Method '{verb} {path}' not implemented")
    cluster.access.authorize(who, method, params)
    if "node" in found[1]:
        cluster.node(found[1]["node"])
    answer = handler(Request(cluster, who, params))
    if cluster.conform:
        faults = method.answer_faults(answer)
        if faults:
            raise RuntimeError(f"{verb} {path} does not answer as declared: {'; '.join(faults[:5])}")
    return answer
