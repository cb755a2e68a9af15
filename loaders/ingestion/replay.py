"""What a run has of earlier ones: objects of a package that was left, and dead letters."""

from __future__ import annotations

from collections.abc import Iterator

from loaders.ingestion.landing import Landing
from loaders.objects.items import Item, Listed, Observed
from loaders.objects.payloads import admit
from loaders.sources.contract import FetchRequest, Source
from loaders.warehouse.dead_letters import DeadLetter


def replay(request: FetchRequest, source: Source, landing: Landing) -> Iterator[Item]:
    """What the run has of earlier ones. Of a retry: what was set aside and passes the gate
    now; the rest is to be read again."""
    if pending := landing.counts.dead_lettered:
        yield Listed(pending)  # objects of a pending package, that no source lists
    if not request.options.retry:
        return
    unsettled: list[DeadLetter] = []
    for letter in request.stored.with_texts(request.stored.dead_letters()):
        landing.failures[letter.object_type, letter.external_id] = letter.attempts
        item = _replayed(letter, source)
        if item is None:
            unsettled.append(letter.without_text())
            continue
        yield Listed(1)
        yield item
        request.outcome.settled.append(letter.dead_letter_id)
    request.letters = request.stored.with_texts(unsettled)


def _replayed(letter: DeadLetter, source: Source) -> Observed | None:
    """Its object from the text that was kept, if that passes the gate now.

    None where the source has to be asked: also for a part whose time of creation only its
    whole tells.
    """
    if letter.payload is None:
        return None
    item = letter.observed(letter.payload)
    try:
        _, payload, _ = admit(letter.payload, source.volatile_keys)
        source.idem_key(item, payload)
        return None if source.created_at(item, payload) is None else item
    except ValueError:  # PayloadError is one
        return None
