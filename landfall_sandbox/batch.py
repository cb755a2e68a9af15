"""Gmail's batch endpoint: many GET requests in one POST, each with an answer of its own.

Source: Gmail API v1, "Batching requests"; RFC 2046 for multipart/mixed. The limit to how many
of a user's calls run at once, which large batches run into, is not published and not here.
"""

import email.message
import email.parser
import email.policy
import http.client
import uuid
from collections.abc import Callable, Mapping

from landfall_sandbox import google_errors as errors
from landfall_sandbox.wire import ApiError, Request, Response

_PATH = "/batch/gmail/v1"
_MAX_PARTS = 100
_PART_TYPE = "application/http"
_LINE = b"\r\n"

Answer = Callable[[Request], Response | None]


def is_batch(request: Request) -> bool:
    """Whether this is a request to the batch endpoint."""
    return request.method == "POST" and request.path == _PATH


def answer_batch(request: Request, answer: Answer) -> Response | None:
    """Return the answers to all parts, in their order; None when one of them gets none at all.

    Headers of the batch hold for every part that does not have its own. A malformed batch, or
    one of more than 100 parts, is 400 and none of its parts is answered. Faults befall parts:
    a truncated one ends early inside a whole batch, `slow_body` and `reset` do nothing.
    """
    try:
        parts = [(part["Content-ID"], _inner_request(part, request)) for part in _parts(request)]
    except ApiError as error:
        return error.response
    boundary = f"batch_{uuid.uuid4().hex}".encode()
    body = b""
    for content_id, inner in parts:
        response = answer(inner)
        if response is None:
            return None
        body += b"--" + boundary + _LINE + _part(content_id, response) + _LINE
    body += b"--" + boundary + b"--" + _LINE
    return Response(200, body, f"multipart/mixed; boundary={boundary.decode()}")


def _parts(request: Request) -> list[email.message.Message]:
    content_type = request.headers.get("content-type", "")
    parser = email.parser.BytesParser(policy=email.policy.compat32)
    message = parser.parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + request.body)
    if message.get_content_type() != "multipart/mixed" or not message.is_multipart():
        raise errors.invalid_argument("Failed to parse batch request: expected multipart/mixed")
    parts = [part for part in message.get_payload() if isinstance(part, email.message.Message)]
    if len(parts) > _MAX_PARTS:
        raise errors.invalid_argument(f"Batch of {len(parts)} requests; at most {_MAX_PARTS}")
    return parts


def _inner_request(part: email.message.Message, batch: Request) -> Request:
    content = part.get_payload(decode=True)
    if part.get_content_type() != _PART_TYPE or not isinstance(content, bytes):
        raise errors.invalid_argument(f"Failed to parse batch request: a part is not {_PART_TYPE}")
    line, _, rest = content.lstrip().partition(b"\n")
    words = line.decode("latin-1").split()
    if len(words) not in (2, 3):  # the HTTP version may be left out
        raise errors.invalid_argument("Failed to parse batch request: a part has no request line")
    inner = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(rest)
    return Request.to(words[0], words[1], _shared_headers(batch) | dict(inner.items()))


def _shared_headers(batch: Request) -> dict[str, str]:
    """Headers of the batch but those on its own body."""
    return {name: value for name, value in batch.headers.items() if not name.startswith("content-")}


def _part(content_id: str | None, response: Response) -> bytes:
    outer = {"Content-Type": _PART_TYPE}
    if content_id is not None:
        outer["Content-ID"] = "<response-" + content_id.removeprefix("<")
    inner = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        **response.headers,
    }
    body = response.body
    if response.is_truncated:
        body = body[: len(body) // 2]
    reason = http.client.responses.get(response.status, "Unknown")
    status = f"HTTP/1.1 {response.status} {reason}".encode()
    return _head(outer) + status + _LINE + _head(inner) + body


def _head(headers: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {value}".encode() + _LINE for name, value in headers.items()]
    return b"".join(lines) + _LINE
