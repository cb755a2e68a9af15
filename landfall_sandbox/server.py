"""The sandbox's server process: HTTP in, the right API's answer out."""

import argparse
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landfall_sandbox.apis import Apis, answer
from landfall_sandbox.batch import answer_batch, is_batch
from landfall_sandbox.layout import DEFAULT_THREADS, THREAD_SIZES
from landfall_sandbox.mailbox import Mailbox
from landfall_sandbox.state import State
from landfall_sandbox.stripe.books import DEFAULT_CHARGES, Books
from landfall_sandbox.wire import Request, Response, json_response

if TYPE_CHECKING:
    from landfall_sandbox.controls.endpoints import Control

DEFAULT_SIZE = 250
DEFAULT_SEED = 1
_DRIBBLES = 20
_RESET_SECONDS = 0.02
"""A reset that comes before the client has read takes from it what was sent."""


class SandboxServer(ThreadingHTTPServer):
    """A threaded server on the loopback interface, one thread a connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, apis: Apis, control: "Control | None" = None) -> None:
        """Listen on `port` (0: a free one); without `control` nothing but the APIs answers."""
        self.apis = apis
        self.control = control
        super().__init__(("127.0.0.1", port), SandboxHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hang up; name any other error, without its text."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            print(f"sandbox: a connection failed: {type(error).__name__}", file=sys.stderr)


class SandboxHandler(BaseHTTPRequestHandler):
    """Reads a request, finds who answers it, and writes the answer."""

    protocol_version = "HTTP/1.1"
    server_version = "LandfallSandbox/1"
    # Nagle's algorithm and delayed ACKs together cost 40 ms an answer on a kept connection.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: SandboxServer

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._handle()

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._handle()

    def do_PUT(self) -> None:
        """Answer a PUT request."""
        self._handle()

    def do_DELETE(self) -> None:
        """Answer a DELETE request."""
        self._handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal belongs to the program that started the server."""

    def _handle(self) -> None:
        request, control = self._read_request(), self.server.control
        if control is None or not request.path.startswith("/sandbox/"):
            self._answer_api(request)
            return
        try:
            stream = control.stream(request)
        except ValueError as error:
            self._send(json_response({"error": str(error)}, 400))
            return
        if stream is None:
            self._send(control.answer(request))
        else:
            self._stream(*stream)

    def _read_request(self) -> Request:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return Request.to(self.command, self.path, dict(self.headers.items()), body)

    def _answer_api(self, request: Request) -> None:
        control = self.server.control
        seconds = 0.0 if control is None else control.latency_seconds
        if is_batch(request):
            time.sleep(seconds)
            response = answer_batch(request, self._respond)
        else:
            response = self._respond(request, seconds)
        if response is None:
            self.close_connection = True
        else:
            self._send(response)

    def _respond(self, request: Request, latency_seconds: float = 0) -> Response | None:
        apis, control = self.server.apis, self.server.control
        for api in apis.each:
            if call := api.match(request):
                if control is None:
                    return answer(api, call)
                return control.respond(api, call, latency_seconds)
        return apis.gmail.error(404, "notFound", "Not Found")

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        headers = {
            "Server": self.version_string(),
            # An API with a clock of its own gives another date.
            "Date": self.date_time_string(),
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
        }
        for name, value in (headers | response.headers).items():
            self.send_header(name, value)
        self.end_headers()
        body = response.body
        if response.is_truncated or response.is_reset:
            body = body[: len(body) // 2]
            self.close_connection = True
        if response.body_seconds:
            self._dribble(body, response.body_seconds)
        else:
            self.wfile.write(body)
        if response.is_reset:
            self._reset()

    def _reset(self) -> None:
        """Abort the connection (RST), once the client waits for the rest of the body."""
        self.wfile.flush()
        time.sleep(_RESET_SECONDS)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _dribble(self, body: bytes, seconds: float) -> None:
        size = len(body) // _DRIBBLES + 1
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        for piece in pieces:
            self.wfile.flush()
            time.sleep(seconds / len(pieces))
            self.wfile.write(piece)

    def _stream(self, content_type: str, chunks: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")


def _exit_at_end_of_input() -> None:
    """Leave when stdin closes: the parent holds its other end, however it dies."""
    sys.stdin.buffer.read()
    os._exit(0)


def _parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="landfall_sandbox.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--state", type=Path, help="SQLite file for changes; default: memory")
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="messages to generate")
    parser.add_argument("--charges", type=int, default=DEFAULT_CHARGES, help="Stripe's charges")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="another seed, other data")
    parser.add_argument("--threads", choices=THREAD_SIZES, default=DEFAULT_THREADS)
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="end with stdin; leave Ctrl-C to the parent"
    )
    parser.add_argument(
        "--controls", action="store_true", help="answer at /sandbox/ what tests ask of the server"
    )
    return parser.parse_args(arguments)


def _control(apis: Apis) -> "Control":
    from landfall_sandbox.controls.endpoints import Control

    return Control(apis)


def main(arguments: list[str]) -> None:
    """Serve until stopped; prints one line of JSON with the port when ready."""
    options = _parse_arguments(arguments)
    state = State(options.state, options.seed, options.size, options.threads)
    books = Books(options.state, state.seed, options.charges)
    apis = Apis(Mailbox(state.seed, state.size, state), books)
    server = SandboxServer(options.port, apis, _control(apis) if options.controls else None)
    if options.exit_with_parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_exit_at_end_of_input, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main(sys.argv[1:])
