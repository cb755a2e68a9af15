"""The APIs that a server speaks, over one mailbox and the Stripe accounts."""

import sys

from landfall_sandbox.gmail import GmailApi
from landfall_sandbox.mailbox import Mailbox
from landfall_sandbox.oauth import OAuthApi
from landfall_sandbox.stripe.api import StripeApi
from landfall_sandbox.stripe.books import Books
from landfall_sandbox.tokens import Tokens
from landfall_sandbox.wire import Api, ApiError, Call, Response


class Apis:
    """All of them, without latency or quota."""

    def __init__(self, mailbox: Mailbox, books: Books) -> None:
        """Serve `mailbox` and the Stripe accounts."""
        self.mailbox = mailbox
        self.books = books
        self.tokens = Tokens()
        self.gmail = GmailApi(mailbox, self.tokens)
        self.stripe = StripeApi(books)
        self.each: list[Api] = [self.gmail, self.stripe, OAuthApi(self.tokens)]


def answer(api: Api, call: Call) -> Response:
    """Return the answer to a call; an error of the API is one, too."""
    try:
        return call.run()
    except ApiError as error:
        return error.response
    except Exception as error:
        # Only the type: the text could quote a message.
        print(f"sandbox: {call.method} failed: {type(error).__name__}", file=sys.stderr)
        return api.error(500, "internalError", f"The sandbox failed: {type(error).__name__}")
