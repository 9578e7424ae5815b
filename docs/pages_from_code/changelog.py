"""The changelog, from the fragments in docs/changes."""

from __future__ import annotations

from pathlib import Path

KINDS = ("added", "changed", "fixed", "removed")


def page(folder: Path) -> str:
    """A section a kind, a point a fragment, in the order of their names."""
    parts = []
    for kind in KINDS:
        fragments = [path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob(f"{kind}-*.md"))]
        if fragments:
            points = "\n".join("- " + text.replace("\n", "\n  ") for text in fragments)
            parts.append(f"### {kind.capitalize()}\n\n{points}\n")
    return "\n".join(parts)
