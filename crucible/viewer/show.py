"""`crucible.view`: serve a run's page, from a terminal or in a notebook."""

from __future__ import annotations

import secrets
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from analysis.questions.motion import last_motion
from crucible.inspection.selection import Selection, Steps, select
from crucible.viewer.server import LOOPBACK, Handler, Server, Site
from crucible.viewer.source import dataset, run_folder, stand_of
from crucible.viewer.views import Views

FRAME_HEIGHT = 860
BROWSER_WAIT_S = 10.0
NORMS = ("l1", "l2", "linf")
ANY_ADDRESS = ("0.0.0.0", "::", "")


@dataclass
class LiveView:
    """A page that is being served; shows itself in a frame where a notebook's cell ends with it.

    Attributes
    ----------
    url : str
        Its address.
    """

    url: str
    _server: Server

    def wait(self) -> None:
        """Serve until Ctrl-C, then close."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop serving and free the port. Closing twice is fine."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{self.url}" title="crucible view" width="100%" height="{FRAME_HEIGHT}" '
            f'style="border:0"></iframe><p><a href="{self.url}" target="_blank">{self.url}</a></p>'
        )


def view(
    run: str | Path,
    *,
    host: str = LOOPBACK[0],
    port: int = 0,
    threshold: float | None = None,
    norm: str = "l2",
    population: str | None = None,
    tokens: Sequence[int] | None = None,
    steps: Steps | None = None,
    framed: bool = True,
) -> LiveView:
    """Serve the live page of a run, and go on.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr; it may be being written.
    host : str
        Address to listen at. Beyond this machine (anything but loopback) the page's address has a secret part, and
        only who knows it is answered.
    port : int
        0 for any that is free.
    threshold, norm
        Of motion, as in `analysis.moved`.
    population, tokens, steps
        The part that is shown, and that the verdict is of, see `crucible.inspection.selection.Selection`. The other
        tokens are faint in the cloud, and nowhere else.
    framed : bool
        Whether a notebook may show the page in a frame.

    Returns
    -------
    LiveView
        With its ``url``; a notebook shows the page where a cell ends with it. ``close()`` stops it, and so does the
        end of the process.

    Raises
    ------
    NotATrajectoryError, DamageError
        There is no run here (yet), or its commit is damaged.
    OSError
        The port is taken.
    ValueError
        A threshold or a norm that cannot be; no such population, token or step; a run that tells of no moves.

    Examples
    --------
    >>> import crucible
    >>> crucible.view("runs/crucible-1")  # doctest: +SKIP
    """
    if threshold is not None and not threshold > 0:
        raise ValueError(f"threshold must be above 0 cells, not {threshold}; at 0 even a still token would move")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
    folder = run_folder(run)
    stand_of(folder)
    selection = Selection(population, tokens, steps)
    # refuses what is not there before the page is served
    last_motion(select(dataset(folder), selection), threshold=threshold, norm=norm)
    views = Views(folder, threshold, norm, selection)
    server = _bind(host, port)
    name = f"[{host}]" if ":" in host else host
    at = f"{name}:{server.server_address[1]}"
    is_local = host in LOOPBACK
    secret = "" if is_local else secrets.token_urlsafe(18)
    server.site = Site(folder, views, _names(at, host, is_local), secret, framed)
    views.begin()
    threading.Thread(target=server.serve_forever, name="crucible-view", daemon=True).start()
    return LiveView(f"http://{at}/{secret + '/' if secret else ''}", server)


def open_browser(url: str, *, wait: bool = False) -> None:
    """Show an address in the user's browser, if there is one; `wait` until it has been told."""
    opening = threading.Thread(target=webbrowser.open, args=(url,), daemon=True)
    opening.start()
    if wait:
        opening.join(BROWSER_WAIT_S)


def _names(at: str, host: str, is_local: bool) -> tuple[str, ...] | None:
    """The Host headers that are right."""
    port = at.rpartition(":")[2]
    if is_local:
        return (at, f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}")
    return None if host in ANY_ADDRESS else (at.lower(),)


def _bind(host: str, port: int) -> Server:
    import socket

    class Bound(Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    if not 0 <= port < 1 << 16:
        raise ValueError(f"port must lie between 0, which takes any that is free, and 65535, not {port}")
    try:
        return Bound((host, port), Handler)
    except OSError as error:
        flag = "port" if port else "host"  # at any free port it can only be the host
        raise OSError(f"{host}:{port}: cannot listen there ({error.strerror or error}); leave out --{flag}") from None
