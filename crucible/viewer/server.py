"""The server of the page: one run, read only, for this machine; every request is refused that nothing on it makes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, unquote, urlsplit

from crucible.inspection import writer_state
from crucible.viewer import files
from crucible.viewer.source import (
    Commit,
    LabelError,
    StaleHandleError,
    commit_of,
    plain_message,
    published,
    refuse_other_file,
    stand_of,
    still_stands,
)
from crucible.viewer.views import Views

LOOPBACK = ("127.0.0.1", "::1", "localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOREVER, ASK_EACH_TIME, NEVER_KEPT = "private, max-age=31536000, immutable", "no-cache", "no-store"
IDLE_S = 60.0
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Site:
    """What is served, and to whom.

    Parameters
    ----------
    run : Path
        The run's folder.
    views : Views
        Makes view.json.
    hosts : tuple of str, or None
        Values of the Host header that are answered; None for all of them (the secret then guards the way in).
    secret : str
        First part of every path, "" for none: where other machines can ask.
    framed : bool
        Whether pages of others (a notebook) may show this one in a frame.
    """

    run: Path
    views: Views
    hosts: tuple[str, ...] | None
    secret: str = ""
    framed: bool = False


class Server(ThreadingHTTPServer):
    """A thread for each connection; ends with the process, and closing it ends the connections that are kept open."""

    daemon_threads = True
    site: Site

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Remember the connection, so that closing the server ends it."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Forget a connection that has ended."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Free the port and end every connection: a browser keeps its own open, and would be answered for ever."""
        super().server_close()
        for connection in tuple(self._connections):
            with suppress(OSError):  # it ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no event."""


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the page's files, view.json, status.json, and the files of the trajectory."""

    protocol_version = "HTTP/1.1"
    server_version = "crucible"
    sys_version = ""
    timeout = IDLE_S
    wbufsize = -1
    disable_nagle_algorithm = True

    @property
    def site(self) -> Site:
        """What is served."""
        return cast(Server, self.server).site

    def do_GET(self) -> None:
        """Answer with a file, or say why not."""
        refusal = self._refusal()
        path = unquote(urlsplit(self.path).path, errors="replace").removeprefix("/")
        prefix = f"{self.site.secret}/" if self.site.secret else ""
        if refusal is not None:
            self._say(*refusal)
        elif not path.startswith(prefix):
            self._say(HTTPStatus.FORBIDDEN, "the address lacks its secret part; use the one that was printed")
        else:
            self._answer(path.removeprefix(prefix) or "index.html")

    do_HEAD = do_GET  # noqa: N815 - the base class's names

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a method
        """Every other method is refused."""
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""

    def _refuse_method(self) -> None:
        self.close_connection = True  # a body may follow, which nobody reads
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", {"Allow": "GET, HEAD"})

    def _refusal(self) -> tuple[HTTPStatus, str] | None:
        """Why this request is not answered at all, if it is not."""
        host, site = self.headers.get("Host", ""), self.site
        if site.hosts is not None and host.lower() not in site.hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "this server is not known by that name"
        from_elsewhere = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        is_navigation = self.headers.get("Sec-Fetch-Mode") == "navigate"
        origin = self.headers.get("Origin")
        if (from_elsewhere and not is_navigation) or (origin is not None and origin != f"http://{host}"):
            return HTTPStatus.FORBIDDEN, "pages of other sites may not read this"
        return None

    def _answer(self, path: str) -> None:
        try:
            if path in files.PAGE_FILES:
                self._send((files.PAGE / path).read_bytes(), files.PAGE_FILES[path])
            elif path == "view.json":
                self._send(self.site.views.newest(), "application/json")
            elif path == "status.json":
                self._send(json.dumps(writer_state.describe(self.site.run)).encode(), "application/json")
            elif path == "trajectory.zarr/zarr.json":
                self._send(published(self.site.run), "application/json")
            elif files.is_of_trajectory(path):
                self._send_stored(path)
            else:
                self._say(HTTPStatus.NOT_FOUND, "no such file")
        except BrokenPipeError:
            self.close_connection = True
        except OSError:  # NotATrajectoryError is one: the run may have gone
            self._say(HTTPStatus.NOT_FOUND, "no such file")
        except Exception as error:
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, plain_message(error, self.site.run))

    def _send_stored(self, path: str) -> None:
        """A file of the trajectory, or a range of it.

        The file is opened behind a look at the commit, and run and generation are compared after that: a cut publishes
        its generation before it changes a chunk, so that a page never takes the bytes of one generation for those of
        another; nor those of another run that has taken the folder.
        """
        commit = commit_of(self.site.run)
        with os.fdopen(files.open_regular(self.site.run, path), "rb") as file:
            asked = parse_qs(urlsplit(self.path).query)
            if why_not := self._why_not(commit, path, file.fileno(), asked):
                self._say(HTTPStatus.NOT_FOUND, why_not)
                return
            named = {"run", "g", "c", *(["w"] if commit.standing else [])}
            is_named = files.CHUNK.fullmatch(path) is not None and named <= asked.keys()
            size = os.fstat(file.fileno()).st_size
            try:
                part = files.range_of(self.headers.get("Range"), size)
            except ValueError as error:
                self._say(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, str(error), {"Content-Range": f"bytes */{size}"})
                return
            if part is None:
                self._head(HTTPStatus.OK, "application/octet-stream", size, FOREVER if is_named else ASK_EACH_TIME)
                self._copy(file, 0, size)
            else:
                span = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}"}
                kind, length = "application/octet-stream", part.stop - part.start
                self._head(HTTPStatus.PARTIAL_CONTENT, kind, length, NEVER_KEPT, span)
                self._copy(file, part.start, length)

    def _why_not(self, commit: Commit, path: str, fd: int, asked: Mapping[str, list[str]]) -> str | None:
        """Why an open file of the trajectory is not sent; None where it is."""
        stand = stand_of(self.site.run)
        now = {"run": stand.run_id, "g": str(stand.generation)}
        is_other = any(asked.get(name, [value]) != [value] for name, value in now.items())
        rows = asked.get("c", ["0"])[0]
        is_fork = "w" in asked and not still_stands(
            self.site.run, path, asked["w"][0], int(rows) if rows.isdecimal() else 0
        )
        if is_other or is_fork:
            return "the run was cut back, compacted, or replaced by another one; ask for its commit again"
        try:
            refuse_other_file(self.site.run, commit, path, fd)
        except (LabelError, StaleHandleError) as error:
            return plain_message(error, self.site.run)
        return None

    def _copy(self, file: BinaryIO, start: int, length: int) -> None:
        if self.command == "HEAD":
            return
        file.seek(start)
        while length:
            piece = file.read(min(length, PIECE_BYTES))
            if not piece:  # cut short while it was read: the browser must notice
                self.close_connection = True
                return
            self.wfile.write(piece)
            length -= len(piece)

    def _send(self, data: bytes, kind: str) -> None:
        """A small answer, made anew each time and compared by its digest."""
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._head(HTTPStatus.NOT_MODIFIED, kind, None, ASK_EACH_TIME, {"ETag": tag})
            return
        self._head(HTTPStatus.OK, kind, len(data), ASK_EACH_TIME, {"ETag": tag})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _say(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        """A refusal in one line."""
        data = f"{text}\n".encode()
        self._head(status, "text/plain; charset=utf-8", len(data), NEVER_KEPT, headers or {})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(
        self, status: HTTPStatus, kind: str, length: int | None, keep: str, more: dict[str, str] | None = None
    ) -> None:
        frames = "" if self.site.framed else "; frame-ancestors 'none'"
        headers = {"Content-Type": kind, "Cache-Control": keep, "Accept-Ranges": "bytes"}
        headers |= ALWAYS | {"Content-Security-Policy": POLICY + frames} | (more or {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
