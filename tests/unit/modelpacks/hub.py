"""A local server that answers like the hub and like torchvision's server, with faults on request."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "a" * 40


@dataclass
class Server:
    """The served files, the faults, and the requests received.

    Attributes:
        files: URL path to content.
        cut: URL path to the number of bytes after which the connection breaks, once.
        seen: (URL path, Range header) of every request for a file.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    has_ranges: bool = True
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def add_repository(self, repo_id: str, files: dict[str, bytes], revision: str = REVISION) -> None:
        """Serve files as a hub repository: large ones in LFS with a SHA-256, small ones with git's hash."""
        tree = []
        for path, content in files.items():
            self.files[f"/{repo_id}/resolve/{revision}/{path}"] = content
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, object] = {"type": "file", "oid": blob, "size": len(content), "path": path}
            if path.endswith((".safetensors", ".bin")):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            tree.append(entry)
        self.files[f"/api/models/{repo_id}/tree/{revision}"] = json.dumps(tree).encode()

    def downloads(self) -> list[tuple[str, str | None]]:
        """Names of the requested files, with the Range header."""
        return [(path.rpartition("/")[2], ranges) for path, ranges in self.seen if not path.startswith("/api/")]


def make_handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            ranges = self.headers.get("Range")
            server.seen.append((path, ranges))
            content = server.files.get(path)
            if content is None:
                self.send_error(404)
                return
            start = int(ranges.removeprefix("bytes=").rstrip("-")) if ranges and server.has_ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", "application/json" if path.startswith("/api/") else "application/binary")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : server.cut.pop(path, None)])

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serve() -> Iterator[Server]:
    """Serve until the block ends."""
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
