from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from dlt.sources.helpers.rest_client.auth import BearerTokenAuth

from loaders.settings.options import secret
from loaders.sources.contract import FetchRequest
from loaders.sources.list_access import access_to
from loaders.sources.lists import ListOptions, ListPage, ListSource
from loaders.sources.rest import Element, RestClient, escaped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ListOptions):
    token: str = secret("a token that may read tickets")
    api_base_url: str = "https://helpdesk.example"


class Tickets(ListSource):
    source_system = "tickets"
    object_types = ("ticket",)

    def account(self, request: FetchRequest) -> str | None:
        return str(self.client.get(request, "me", "/me").value["team"])

    def page(
        self,
        request: FetchRequest,
        object_type: str,
        since: dt.datetime | None,
        after: str | None,
        limit: int,
    ) -> ListPage:
        asked = {"limit": limit, "after": after, "updated_since": since and since.isoformat()}
        answer = self.client.get(request, "tickets.list", "/tickets", asked)
        return ListPage(answer.elements("tickets"), answer.value["next"])

    def object(self, request: FetchRequest, object_type: str, object_id: str) -> Element:
        path = f"/tickets/{escaped(object_id)}"
        answer = self.client.get(request, "tickets.get", path, None, object_id)
        return answer.content, answer.value

    def changed(self, value: Mapping[str, Any]) -> dt.datetime:
        return dt.datetime.fromisoformat(value["updated"])

    def created(self, value: Mapping[str, Any]) -> dt.datetime:
        return dt.datetime.fromisoformat(value["created"])


def new_source(name: str, options: Options) -> Tickets:
    auth = BearerTokenAuth(options.token)
    client = RestClient("tickets", options, options.api_base_url, auth=auth)
    return Tickets(name, options, client)


open_access = access_to(Options, new_source)
