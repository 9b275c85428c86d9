"""The page in a browser: examples are dropped or typed, learnt from and asked about, and nothing comes from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from browser import Visit, browsing
from quickstudy.serve.page import page as whole
from served import Server, of_images, of_tables, of_texts, running

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    with browsing() as visit:
        yield visit


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Photographs of rings and of crosses, in ink on paper."""
    folder, found = tmp_path_factory.mktemp("pictures"), {}
    for name in ("ring", "cross"):
        for i in range(3):
            image = Image.new("L", (900, 700), 235)
            pen, at = ImageDraw.Draw(image), 20 * i
            if name == "ring":
                pen.ellipse((150 + at, 100, 750 - at, 600), outline=20, width=60)
            else:
                pen.line((150 + at, 100, 750 - at, 600), fill=20, width=60)
                pen.line((750 - at, 100, 150 + at, 600), fill=20, width=60)
            image.save(folder / f"{name}{i}.png")
        found[name] = [str(folder / f"{name}{i}.png") for i in range(3)]
    return found


def tasks(server: Server) -> int:
    return server.app.app.state.desk.store.count()


@pytest.mark.parametrize("phone", [False, True])
def test_images(phone: bool, visit: Visit, pictures: dict[str, list[str]], tmp_path: Path) -> None:
    with running(of_images(tmp_path)) as server:
        seen = visit(f"{server.url}/", phone=phone, dark=phone)
        page = seen.page
        page.locator("#classes .card").first.wait_for()
        page.get_by_role("button", name="Learn these").click()
        page.get_by_text("Give examples of two classes or more").wait_for()
        page.locator("#invert").check()
        for i, (name, files) in enumerate(pictures.items()):
            card = page.locator("#classes .card").nth(i)
            card.locator("input[type=text]").fill(name)
            card.locator("input[type=file]").set_input_files(files[:2])
            card.locator("img").nth(1).wait_for()
        page.get_by_role("button", name="Learn these").click()
        page.get_by_text("Learnt from 4 examples of 2 classes").wait_for()
        page.locator("#files").set_input_files([pictures["ring"][2], pictures["cross"][2]])
        page.locator("#answers .card").nth(1).wait_for()
        assert page.locator("#answers h3").all_inner_texts() == ["ring", "cross"]
        first = page.locator("#answers .card").first
        assert [text.strip()[-1] for text in first.locator(".bar i").all_inner_texts()] == ["%", "%"]
        assert first.locator(".thumbs img").first.get_attribute("alt").startswith("ring: ring")
        assert seen.overflow() <= 0 and not seen.complaints()
        assert (sum(seen.background()) < 200) == phone
        assert tasks(server) == 1
        page.get_by_role("button", name="Start afresh").click()
        page.get_by_text("The examples were deleted").wait_for()
        assert tasks(server) == 0 and not page.locator("#answers .card").count()


def test_texts_behind_a_token(visit: Visit, tmp_path: Path) -> None:
    with running(of_texts(tmp_path), token=TOKEN) as server:
        seen = visit(f"{server.url}/")
        page = seen.page
        page.locator("#token").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("The token is missing or wrong").wait_for()
        page.locator("#token").fill(TOKEN)
        page.get_by_role("button", name="Go on").click()
        for i, (name, text) in enumerate((("<b>money</b>", "refund please 1"), ("card", "lost card please 1"))):
            page.locator("#classes input").nth(i).fill(name)
            page.locator("#classes textarea").nth(i).fill(f"{text}\n\n{text} now\n")
        page.get_by_role("button", name="Learn these").click()
        page.get_by_text("Learnt from 4 examples").wait_for()
        page.locator("#new").fill("refund please\nmy <i>lost card</i>")
        page.get_by_role("button", name="Ask").click()
        page.locator("#answers .card").nth(1).wait_for()
        assert page.locator("#answers h3").all_inner_texts() == ["<b>money</b>", "card"]  # as they were typed
        assert "refund please 1" in page.locator("#answers .card").first.inner_text()
        assert not seen.outside and not seen.errors
        assert all("401" in text for text in [*seen.console, *seen.failed]), seen.complaints()


def test_tables_and_the_api(visit: Visit, tmp_path: Path) -> None:
    with running(of_tables(tmp_path)) as server:
        seen = visit(f"{server.url}/", phone=True)
        page = seen.page
        page.locator("#given").fill("dose,arm,age,score\n0.1,a,,1\n0.5,b,3,2.5\n")
        page.get_by_role("button", name="Learn these").click()
        page.get_by_text("Learnt from 2 examples").wait_for()
        page.locator("#new").fill("dose\tarm\tage\n0.1\ta\t\n0.4\tx\t")
        page.get_by_role("button", name="Ask").click()
        page.locator("#answers .card").nth(1).wait_for()
        assert re.match(r"-?\d.* ± \d", page.locator("#answers h3").first.inner_text())
        page.locator("#new").fill("dose\n0.1")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Row 0 has no 'arm'").wait_for()
        assert seen.overflow() <= 0 and not seen.outside and not seen.errors
        docs = visit(f"{server.url}/docs", phone=True, dark=True)
        docs.page.get_by_role("heading", name="POST /tasks/{id}/predict").wait_for()
        assert "the examples" in docs.page.locator("#list").inner_text()
        assert docs.overflow() <= 0 and not docs.complaints()


@pytest.mark.parametrize("name", ["page", "docs"])
def test_a_page_is_whole_and_its_policy_closed(name: str) -> None:
    html, policy = whole(name)
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("sha256-") == 2
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!/)""", html) and "http:" not in html and "https:" not in html
    assert "innerHTML" not in html and " style=" not in html and " onclick" not in html
