"""A page that is published already: find out whether there is one at an address."""

from __future__ import annotations

import json
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from crucible.viewer.export import VIEW
from crucible.viewer.source import DOCUMENT, TRAJECTORY
from store.errors import NotATrajectoryError

PATIENCE_S = 20.0
MOST_BYTES = 64 << 20
HOW_TO_MAKE = "`crucible view RUN --export DIR` makes a folder to publish"


def is_address(run: str) -> bool:
    """Whether this names a page on a server rather than a run on this machine.

    Examples
    --------
    >>> is_address("https://example.org/page/"), is_address("runs/mine")
    (True, False)
    """
    return run.lower().startswith(("http://", "https://"))


def find_page(address: str) -> str:
    """The address of the page of a run, given it, one of its files, or its trajectory.

    Parameters
    ----------
    address : str
        Begins with http:// or https://. What stands behind # is kept.

    Returns
    -------
    str
        Ends with a slash, or with what stood behind #.

    Raises
    ------
    NotATrajectoryError
        There is no page there; says what else there is.
    ConnectionError
        The server does not answer.
    """
    split = urlsplit(address)
    folder = urlunsplit((split.scheme, split.netloc, _folder(split.path), "", ""))
    status, view = _get(f"{folder}{VIEW}")
    if status == 200 and _holds(view, "commit", "title", "tokens", "labels"):
        return folder + (f"#{split.fragment}" if split.fragment else "")
    for document in (f"{folder}{TRAJECTORY}/{DOCUMENT}", f"{folder}{DOCUMENT}", f"{address.rstrip('/')}/{DOCUMENT}"):
        if _holds(_get(document)[1], "zarr_format", "node_type"):
            raise NotATrajectoryError(
                f"{address}: is a trajectory without its page ({VIEW} is not beside it); copy it to this machine and "
                f"view the copy, or publish the page: {HOW_TO_MAKE}"
            )
    found = "something else" if status == 200 else f"the server answers {status}"
    raise NotATrajectoryError(f"{folder}{VIEW}: {found}, so there is no page of a run here; {HOW_TO_MAKE}")


def _folder(path: str) -> str:
    """The folder of the page, for a path to it, to one of its files, or to its trajectory."""
    parts = path.strip("/").split("/")
    if parts[-1] in ("index.html", VIEW, TRAJECTORY):
        parts.pop()
    whole = "/".join(parts)
    return f"/{whole}/" if whole else "/"


def _holds(data: bytes, *keys: str) -> bool:
    """Whether this is a JSON object with these keys; some servers answer every address with a page of theirs."""
    try:
        found = json.loads(data)
    except ValueError:
        return False
    return isinstance(found, dict) and found.keys() >= set(keys)


def _get(url: str) -> tuple[int, bytes]:
    """Status and body of an address."""
    try:
        with urlopen(Request(url, headers={"User-Agent": "crucible"}), timeout=PATIENCE_S) as answer:
            return answer.status, answer.read(MOST_BYTES)
    except HTTPError as error:
        return error.code, b""
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise ConnectionError(
            f"{url}: cannot be asked for ({reason}); is the address right, and its server there?"
        ) from None
