"""A file system that forgets: it logs every call, and lays out what a power cut may legally leave.

What is kept: the content that a file had when it was last flushed, and the names that a folder had when it was last
flushed. Of the rest any subset may have happened: a name that was not flushed is there or not, content that was not
flushed is missing, cut, garbled or whole. A rename happens as one.
"""

import hashlib
import os
from pathlib import Path


class Node:
    """A file or a folder, whatever its names. Known by itself, as an inode is."""

    def __init__(self, kind):
        self.kind = kind
        self.names = {}
        self.last_name = ""


class PowerLog:
    """The operating system for a `LocalDisk`: does every call below `root`, flushing for free, and logs it.

    Parameters
    ----------
    root : Path
        An empty folder that a power cut leaves.

    Attributes
    ----------
    die_at : int or None
        From this call on nothing happens any more, as after a kill.
    die_after_commits : int or None
        The same, right after so many renames of the commit's file, which are then seen and not flushed.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.top = Node("folder")
        self.log = []
        self.promised_at = []
        self.promised = {}
        self.writer = None
        self.count, self.die_at, self.die_after_commits = 0, None, None
        self._open = {}

    def promise(self, **what):
        """Note what was promised; what a writer says of itself is noted by itself at every call."""
        self.promised = self.promised | what

    def look(self):
        """Note what the writer says of itself."""
        if self.writer is not None:
            commit = self.writer._worker.publisher.commit
            self.promise(steps=commit.committed_steps, generation=commit.generation)

    def _enter(self):
        self.look()
        self.count += 1
        if self.die_at is not None and self.count >= self.die_at:
            raise OSError("the process is dead")

    def _note(self, *entry):
        self.log.append(entry)
        self.promised_at.append(self.promised)

    def _place(self, path):
        """The folder that a path lies in, and its name there."""
        *above, name = Path(path).relative_to(self.root).parts
        folder = self.top
        for part in above:
            folder = folder.names[part]
        return folder, name

    def _link(self, path, node):
        folder, name = self._place(path)
        folder.names[name], folder.last_name = node, name
        self._note("link", folder, name, node)

    def _unlink(self, path):
        folder, name = self._place(path)
        self._note("unlink", folder, name, folder.names.pop(name))

    def _path(self, path, dir_fd):
        """The whole path; a name may be relative to a folder that is open."""
        return Path(path) if dir_fd is None else self._open[dir_fd][1] / path

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        self._enter()
        path = self._path(path, dir_fd)
        existed = path.exists()
        fd = os.open(path, flags, mode)
        if not existed:
            self._link(path, Node("file"))
        folder, name = (None, None) if path == self.root else self._place(path)
        node = folder.names[name] if folder else self.top
        if existed and flags & os.O_TRUNC:
            self._note("truncate", node)
        self._open[fd] = node, path
        return fd

    def write(self, fd, data):
        self._enter()
        written = os.write(fd, data)
        self._note("write", self._open[fd][0], bytes(data[:written]))
        return written

    def fsync(self, fd):
        self._enter()
        node, path = self._open[fd]
        self._note("sync", node, what_is_flushed(path.relative_to(self.root).parts, node))

    def close(self, fd):
        del self._open[fd]
        os.close(fd)
        self._enter()

    def replace(self, source, target, *, src_dir_fd=None, dst_dir_fd=None):
        self._enter()
        source, target = self._path(source, src_dir_fd), self._path(target, dst_dir_fd)
        os.replace(source, target)  # noqa: PTH105 - the call itself
        folder, name = self._place(source)
        node = folder.names.pop(name)
        to, new = self._place(target)
        to.names[new], to.last_name = node, new
        self._note("move", to, new, node, folder, name)
        if self.die_after_commits is not None and Path(target).parts[-2:] == ("trajectory.zarr", "zarr.json"):
            self.die_after_commits -= 1
            if self.die_after_commits == 0:
                self.die_at = self.count + 1

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        self._enter()
        path = self._path(path, dir_fd)
        os.mkdir(path, mode)  # noqa: PTH102
        self._link(path, Node("folder"))

    def unlink(self, path, *, dir_fd=None):
        self._enter()
        path = self._path(path, dir_fd)
        os.unlink(path)  # noqa: PTH108
        self._unlink(path)

    def rmdir(self, path, *, dir_fd=None):
        self._enter()
        path = self._path(path, dir_fd)
        os.rmdir(path)  # noqa: PTH106
        self._unlink(path)


def what_is_flushed(parts, node):
    """Which kind of file or folder it is; for a folder also the name that was put there last."""
    if parts == ():
        return "above the run, for run"
    parts = parts[1:]
    if node.kind == "file":
        where, _, name = parts[-1].partition(".")
        if where.startswith("step-"):
            return "checkpoint's file"
        if name in ("config.json", "metadata.json"):
            return name
        return ("commit" if where == "trajectory" else "array's zarr.json") if name.endswith("zarr.json") else "chunk"
    last = node.last_name
    last = "step-N" if last.startswith("step-") else "chunk" if last.startswith("c.") else last
    hidden = parts[:2] == (".partial", "trajectory.zarr")
    if parts[hidden : hidden + 1] == ("trajectory.zarr",):
        kind = "hidden " * hidden + ("array" if parts[hidden + 1 :] else "group")
        last = last if last in ("chunk", "zarr.json") else "array"
    else:
        kind = {(): "run", (".partial",): "partial", ("checkpoint",): "checkpoints"}.get(parts, "checkpoint")
        last = "file" if kind == "checkpoint" else last
    return f"{kind} folder, for {last}"


def turning_points(log, promised_at):
    """Where a cut tells most: after each rename of a commit or document, after each new promise, and at the end."""
    moves = [(at, entry) for at, entry in enumerate(log) if entry[0] == "move"]
    renames = {at + 1 for at, entry in moves if entry[2] == "zarr.json" and "W" in entry[1].names}
    promises = {at for at in range(1, len(log)) if promised_at[at] != promised_at[at - 1]}
    documents = {at + 1 for at, entry in moves if entry[2] in ("config.json", "metadata.json")}
    return sorted(renames | documents | promises | {len(log)})


def flushes(log):
    """Every kind of flush in a log."""
    return sorted({entry[2] for entry in log if entry[0] == "sync"})


def without(log, kind):
    """The log of a store that forgets one kind of flush. As long as the log, so that promises keep their place."""
    return [("nothing",) if entry[0] == "sync" and entry[2] == kind else entry for entry in log]


class Remains:
    """What a power cut after the first `length` entries of a log may leave.

    Parameters
    ----------
    names, content : float
        Chance that a name, or content, that was not flushed is there all the same.
    """

    def __init__(self, log, length, rng, names, content):
        self._rng, self._content = rng, content
        flushed = {}
        for at, entry in enumerate(log[:length]):
            if entry[0] == "sync":
                flushed[entry[1]] = at
        self._folders, self._files = {}, {}
        for at, (what, *entry) in enumerate(log[:length]):
            if what in ("write", "truncate"):
                kept, waiting = self._files.get(entry[0], (b"", b""))
                new = b"" if what == "truncate" else (kept + waiting if what == "write" else b"") + entry[1]
                self._files[entry[0]] = (new, b"") if at < flushed.get(entry[0], -1) else (kept, new[len(kept) :])
            elif what in ("link", "unlink", "move") and (at < flushed.get(entry[0], -1) or rng.random() < names):
                self._apply(what, *entry)

    def _apply(self, what, folder, name, node, *source):
        names = self._folders.setdefault(folder, {})
        if what == "unlink":
            if names.get(name) is node:
                del names[name]
            return
        names[name] = node
        if source and self._folders.get(source[0], {}).get(source[1]) is node:
            del self._folders[source[0]][source[1]]

    def tree(self, folder, prefix=""):
        """What is left below a folder: path -> content, None for a folder."""
        found = {}
        for name, node in sorted(self._folders.get(folder, {}).items()):
            path = f"{prefix}{name}"
            if node.kind == "folder":
                found[path] = None
                found |= self.tree(node, f"{path}/")
            else:
                found[path] = self._spoil(*self._files.get(node, (b"", b"")))
        return found

    def _spoil(self, kept, waiting):
        if not waiting or self._rng.random() < self._content:
            return kept + waiting
        cut = self._rng.randrange(len(waiting))
        garbage = self._rng.randbytes(len(waiting))
        return kept + self._rng.choice([b"", waiting[:cut], garbage, bytes(len(waiting))])


def lay_out(tree, folder):
    """Make these files."""
    for path, content in tree.items():
        if content is None:
            (Path(folder) / path).mkdir()
        else:
            (Path(folder) / path).write_bytes(content)


def fingerprint(tree):
    """The same for the same files."""
    return hashlib.sha256(repr(sorted(tree.items())).encode()).hexdigest()
