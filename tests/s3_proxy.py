"""A proxy before a server of this machine, which refuses, cuts and delays requests as it is told to."""

import http.client
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

from loopback import LoopbackServer, QuietHandler, running

SLOW_DOWN = (
    "<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
EXPIRED = (
    "<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
)
CUT, CUT_ANSWER = "cut", "cut answer"
_OF_ONE_CONNECTION = ("connection", "transfer-encoding", "content-length", "keep-alive", "expect")


class Proxy(LoopbackServer):
    """Hands requests on; ``rule(method, path, number)`` says what else is done to one, the first being 1.

    A rule gives None (hand it on), a number of seconds (so much later), a status with its body (instead of asking),
    ``CUT`` (the connection ends before the request is handed on) or ``CUT_ANSWER`` (in the middle of the answer, which
    has then taken effect).
    """

    def __init__(self, url):
        self.target, self.rule, self.asked = urlsplit(url).netloc, lambda method, path, number: None, []
        self.lock = threading.Lock()
        super().__init__(_Handler)


class _Handler(QuietHandler):
    def handle_expect_100(self):
        return True  # the client sends its body when it sees no answer soon

    def hand_on(self):
        with self.server.lock:
            self.server.asked.append((self.command, self.path))
            done = self.server.rule(self.command, self.path, len(self.server.asked))
        if done == CUT:
            self.close_connection = True
            return
        body = self._body()
        if isinstance(done, tuple):
            self._answer(done[0], {"Content-Type": "application/xml"}, done[1].encode())
            return
        if isinstance(done, float):
            time.sleep(done)
        server = http.client.HTTPConnection(self.server.target, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        server.request(self.command, self.path, body, headers)
        answer = server.getresponse()
        data = answer.read()
        server.close()
        self._answer(answer.status, dict(answer.getheaders()), data, is_cut=done == CUT_ANSWER)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = hand_on

    def _body(self):
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, status, headers, data, is_cut=False):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _OF_ONE_CONNECTION:
                self.send_header(name, value)
        size = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", size)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # who asked has given up
                self.wfile.write(data[: len(data) // 2] if is_cut else data)
        self.close_connection = is_cut


def before(url):
    """A proxy before the server at an address, until the block ends."""
    return running(Proxy(url))
