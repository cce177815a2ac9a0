"""A server of one folder on this machine that knows range requests, and fails as it is told to."""

import re
import threading

from loopback import LoopbackServer, QuietHandler, running


class Together:
    """Holds requests back until so many are under way at the same time; from then on all pass."""

    def __init__(self, number):
        self.number, self.asked = number, set()
        self._lock, self._passed = threading.Lock(), threading.Event()

    def wait(self, request):
        with self._lock:
            if not self._passed.is_set():
                self.asked.add(request)  # one that is asked again is not another
            if len(self.asked) == self.number:
                self._passed.set()
        if not self._passed.wait(60):  # nobody else comes, which the test sees
            self._passed.set()


class RangeServer(LoopbackServer):
    """Serves a folder with range requests; ``fail`` says which are cut off, ``together`` holds those for tars back."""

    def __init__(self, folder):
        self.folder, self.requests, self.fail = folder, [], lambda name, number: False
        self.together = None
        self.num_asked = 0
        self.refuse, self.knows_ranges = lambda name, number: 0, True
        super().__init__(RangeHandler)


class RangeHandler(QuietHandler):
    def do_HEAD(self):
        self.respond(body=False)

    def do_GET(self):
        self.respond(body=True)

    def respond(self, body):
        name = self.path.lstrip("/")
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        self.server.num_asked += 1
        status = self.server.refuse(name, self.server.num_asked)
        if status:
            self.send_error(status)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range") if self.server.knows_ranges else None
        begin, end = 0, len(data)
        if wanted:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
            begin, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
        if body:
            self.server.requests.append((name, begin, end))
            if self.server.together and name.endswith(".tar"):
                self.server.together.wait((name, begin, end))
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        if body and self.server.fail(name, len(self.server.requests)):
            self.wfile.write(data[begin : (begin + end) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(data[begin:end])


def served(folder):
    """A server of a folder, until the block ends."""
    return running(RangeServer(folder))
