"""The pages: one file each, with its style and script inside, which a browser is told are all it may use."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "pages"


@cache
def page(name: str) -> tuple[str, str]:
    """The HTML of a page, and its content security policy."""
    style, script, body = ((FOLDER / file).read_text("utf-8") for file in ("page.css", f"{name}.js", f"{name}.html"))
    html = body.replace("/*style*/", style).replace("/*script*/", script)
    allowed = {"script-src": _hashed(script), "style-src": _hashed(style), "img-src": "data: blob:"}
    allowed |= {"connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    return html, "; ".join(["default-src 'none'", *(f"{what} {who}" for what, who in allowed.items())])


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
