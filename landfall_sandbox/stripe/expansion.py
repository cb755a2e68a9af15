"""References replaced by the objects they refer to, and lists put into the object they belong to.

Source: Stripe docs, "Expanding responses".
"""

import math

from landfall_sandbox.stripe import errors
from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.kinds import KINDS, Kind
from landfall_sandbox.stripe.ledger import PREFIXES
from landfall_sandbox.stripe.listing import list_text, page
from landfall_sandbox.stripe.parameters import Parameters
from landfall_sandbox.stripe.templates import indent, pretty

_MAX_LEVELS = 4
# What balance transactions come from can be of any kind; only what these have can be expanded.
_SOURCE_KINDS = ("charge", "refund", "dispute", "payout")
_KINDS_BY_PREFIX = {PREFIXES[kind]: kind for kind in KINDS}


def check_paths(kind: Kind | None, paths: list[str], *, is_list: bool) -> list[str]:
    """Return what to expand in each object. Raises ApiError (400) for a path there is not."""
    checked = []
    for path in paths:
        inner = path.removeprefix("data.") if is_list else path
        if kind is None or (is_list and inner == path) or not _is_known(kind, inner):
            raise errors.bad_request(f"This property cannot be expanded ({path}).", "expand")
        if path.count(".") >= _MAX_LEVELS:
            raise errors.bad_request(f"You cannot expand more than 4 levels ({path}).", "expand")
        checked.append(inner)
    return checked


def _is_known(kind: Kind, path: str) -> bool:
    if path in kind.lists:
        return True
    for name, expansion in kind.expansions.items():
        if path == name:
            return True
        if path.startswith(f"{name}."):
            targets = _SOURCE_KINDS if expansion.kind is None else (expansion.kind,)
            rest = path[len(name) + 1 :]
            return any(_is_known(KINDS[target], rest) for target in targets)
    return False


def expand(account: Account, kind: Kind, text: str, paths: list[str]) -> str:
    """Return the text of an object with the objects at `paths` in place of their ids.

    Lists at `paths` are put in, their first page.
    """
    for name, expansion in kind.expansions.items():
        inner = [path[len(name) + 1 :] for path in paths if path.startswith(f"{name}.")]
        if name in paths or inner:
            text = _replace(account, text, name, expansion.levels, inner)
    for name in kind.lists.keys() & paths:
        text = _put_in(account, kind, text, name)
    return text


def _put_in(account: Account, kind: Kind, text: str, name: str) -> str:
    listed = KINDS[kind.lists[name].kind]
    # An object's text begins with its id.
    object_id = text.split('"', 4)[3]
    everything = (-math.inf, -math.inf), (math.inf, math.inf)
    found = page(account, listed, Parameters({kind.name: [object_id]}), everything)
    texts = [account.text(listed.name, index) for index in found.indexes]
    url = f"/v1/{kind.plural}/{object_id}/{name}"
    shown = list_text(texts, found.has_more, url).decode()
    before = f'\n  "{kind.lists[name].before}": '
    return text.replace(before, f'\n  "{name}": {indent(shown, 1)},{before}', 1)


def _replace(account: Account, text: str, name: str, levels: int, inner: list[str]) -> str:
    start_of_line = "\n" + "  " * levels
    key = f'{start_of_line}"{name.rpartition(".")[2]}": '
    start = text.find(f'{key}"')
    if start < 0:
        return text  # null
    start += len(key)
    end = text.index('"', start + 1)
    found = referred(account, text[start + 1 : end], inner)
    return text if found is None else text[:start] + indent(found, levels) + text[end + 1 :]


def referred(account: Account, object_id: str, paths: list[str]) -> str | None:
    """Return the text of an object by its id; None where there is none to read."""
    name = _KINDS_BY_PREFIX.get(object_id.partition("_")[0])
    index = None if name is None else account.index_of(name, object_id)
    if name is None or index is None:
        return None
    if account.is_live(name, index):
        return expand(account, KINDS[name], account.text(name, index), paths)
    return pretty(tombstone(name, object_id)) if name == "customer" else None


def tombstone(kind: str, object_id: str) -> dict[str, object]:
    """Return what is left of a deleted object."""
    return {"id": object_id, "object": kind, "deleted": True}
