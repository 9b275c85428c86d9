"""The room for browser tests sees what a page does."""

from __future__ import annotations

import asyncio
from pathlib import Path

from browser import browsing

PAGE = """<!doctype html><html lang="en"><title>{title}</title><meta name="viewport" content="width=device-width">
<style>body {{ background: #fff }} @media (prefers-color-scheme: dark) {{ body {{ background: rgb(10, 20, 30) }} }}
</style><p>text</p>{more}</html>"""


def test_a_good_page_has_no_complaints(tmp_path: Path):
    page = tmp_path / "good.html"
    page.write_text(PAGE.format(title="good", more="<img alt='' src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>"))
    with browsing() as visit:
        desktop, phone = visit(page), visit(page, phone=True, dark=True)
        assert desktop.page.title() == "good" and not desktop.complaints() + phone.complaints()
        assert desktop.page.evaluate("innerWidth") == 1280 and phone.page.evaluate("innerWidth") == 390
        assert desktop.background() == (255, 255, 255) and phone.background() == (10, 20, 30)
        assert desktop.overflow() <= 0 and phone.overflow() <= 0
    asyncio.run(asyncio.sleep(0))  # no event loop is left running


def test_each_fault_is_seen(tmp_path: Path):
    bad = (
        "<div style='width:500px'>wide</div><img alt='' src='http://127.0.0.1:9/outside.png'>"
        "<script>console.warn('careful'); console.log('fine'); throw new Error('broken')</script>"
    )
    page = tmp_path / "bad.html"
    page.write_text(PAGE.format(title="bad", more=bad))
    with browsing() as visit:
        seen = visit(page, phone=True)
        assert seen.errors == ["uncaught: broken"]
        assert seen.outside == ["asked for http://127.0.0.1:9/outside.png"]
        assert "console warning: careful" in seen.console and "fine" not in str(seen.console)
        assert seen.failed[0].startswith("failed: http://127.0.0.1:9/outside.png")
        assert seen.overflow() > 0
