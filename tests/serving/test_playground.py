"""The page at ``/`` in a real browser, by keyboard, on a phone, in light and dark, without the internet.

Skipped where no Chromium is installed; RANKER_CHROMIUM names one, and RANKER_PICTURES a folder for screenshots.
"""

import asyncio
import importlib.util
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(browser)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium is installed"),
]
Story = Callable[["browser.Page"], Awaitable[None]]


def tell(story: Story, **size: int) -> None:
    async def told() -> None:
        async with browser.Page(browser.find_browser(), **size) as page:
            await story(page)
            assert page.errors == []

    asyncio.run(told())


async def picture(page: "browser.Page", name: str) -> None:
    if folder := os.environ.get("RANKER_PICTURES"):
        await page.picture(Path(folder) / f"{name}.png")


@pytest.fixture(scope="module")
def address(http_service: Callable[[str], str]) -> str:
    return http_service()


TEXTS = "[...document.querySelectorAll('#after li .text')].map(e => e.textContent)"
FOCUS = "document.activeElement.closest('#before, #after')?.id + ' ' + document.activeElement.dataset.key"


def test_a_search_by_keyboard_shows_both_orders_with_moves_scores_and_times(address: str):
    async def told(page: "browser.Page") -> None:
        await page.open(f"{address}/")
        await page.until("document.querySelector('#about').textContent.includes('10 documents')")
        assert await page.run("document.activeElement.id") == "query"
        await page.type("which animal guards <b>a house</b>")
        await page.press("Enter")
        await page.until("document.querySelectorAll('#after li').length === 10")
        await picture(page, "search")
        before = await page.run("[...document.querySelectorAll('#before li')].map(e => e.dataset.key)")
        after = await page.run("[...document.querySelectorAll('#after li')].map(e => e.dataset.key)")
        assert before == [str(rank) for rank in range(1, 11)] and sorted(after, key=int) == before != after
        moves = await page.run("[...document.querySelectorAll('#after .move')].map(e => e.getAttribute('aria-label'))")
        ranks = [int(key) - place for place, key in enumerate(after, start=1)]
        assert moves == [f"up {m}" if m > 0 else f"down {-m}" if m < 0 else "did not move" for m in ranks]
        scores = [
            float(s) for s in await page.run("[...document.querySelectorAll('#after .score')].map(e => e.textContent)")
        ]
        assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
        status = await page.run("document.querySelector('#status').textContent")
        assert "10 documents" in status and "retrieve" in status and "rerank" in status and "ms" in status
        assert await page.run("document.querySelectorAll('svg path').length") == 10
        assert {url.split("/")[2] for url in page.asked if not url.startswith("data:")} == {address.split("/")[2]}
        # From the query to the results, down, and to the same document in the other list.
        await page.run("document.querySelector('#before li').focus()")
        await page.press("ArrowDown")
        assert await page.run(FOCUS) == "before 2"
        await page.press("ArrowRight")
        assert await page.run(FOCUS) == "after 2"
        assert await page.run("document.querySelectorAll('li.twin').length") == 2
        await page.press("Enter")
        assert await page.run("document.activeElement.classList.contains('open')")
        await page.press("/")
        assert await page.run("document.activeElement.id") == "query"

    tell(told)


def test_documents_of_ones_own_on_a_phone_in_the_dark(address: str):
    async def told(page: "browser.Page") -> None:
        await page.resize(390, 844, phone=True)
        await page.prefer("dark")
        await page.open(f"{address}/")
        await page.run("document.querySelector('[value=own]').click()")
        await page.run("document.querySelector('#texts').focus()")
        await page.type("A dog barks at strangers.\nA cat purrs.\n<img src=x onerror=alert(1)>")
        assert await page.run("document.querySelector('#count').textContent") == "3 documents."
        await page.run("document.querySelector('#query').focus()")
        await page.type("who barks")
        await page.press("Enter")
        await page.until("document.querySelectorAll('#after li').length === 3")
        await picture(page, "phone")
        assert await page.run("document.querySelector('#before-title').textContent") == "As pasted"
        assert not await page.run("document.querySelector('#depth').checkVisibility()")
        assert "<img src=x onerror=alert(1)>" in await page.run(TEXTS)  # shown, not run
        assert await page.run("document.querySelectorAll('main img').length") == 0
        assert await page.run("document.documentElement.scrollWidth <= 390")  # nothing to scroll sideways
        dark = await page.run("getComputedStyle(document.body).backgroundColor")
        await page.prefer("light")
        assert dark != await page.run("getComputedStyle(document.body).backgroundColor")
        await page.run("document.querySelector('#theme').click()")
        assert dark == await page.run("getComputedStyle(document.body).backgroundColor")

    tell(told)


def test_a_service_with_keys_asks_for_one_and_says_what_is_wrong(http_service: Callable[[str], str]):
    async def told(page: "browser.Page") -> None:
        await page.open(f"{http_service('open-sesame')}/")
        await page.until("document.querySelector('#status').textContent.includes('API key')")
        assert await page.run("document.activeElement.id") == "key"
        await page.type("open-sesame")
        await page.run("document.querySelector('#key').dispatchEvent(new Event('change'))")
        await page.until("document.querySelector('#about').textContent.includes('10 documents')")
        await page.run("document.querySelector('#go').click()")
        await page.run("document.querySelector('#query').focus()")
        await page.type("who barks")
        await page.press("Enter")
        await page.until("document.querySelectorAll('#after li').length === 10")
        assert "open-sesame" not in await page.run("document.querySelector('#curl').textContent")

    tell(told)


def test_every_route_is_shown(address: str):
    async def told(page: "browser.Page") -> None:
        await page.open(f"{address}/docs")
        await page.until("document.querySelectorAll('details').length > 10")
        await page.run("document.querySelectorAll('details')[0].open = true")
        await picture(page, "docs")
        shown = await page.run("document.body.textContent")
        assert "/v2/rerank" in shown and "max_tokens_per_doc" in shown and "429" in shown

    tell(told)


def test_light_and_dark_can_be_read(address: str):
    """Every text of the page has a contrast of 4.5 to what lies behind it (WCAG 2.2, AA)."""
    script = """(() => {
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
      const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
      const bad = [];
      for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
        if (/SCRIPT|STYLE|OPTION/.test(e.tagName) || e.className === 'skip') continue;
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
        const contrast = (a + .05) / (b + .05);
        if (contrast < 4.5) bad.push(e.tagName + ' ' + e.className + ' ' + contrast.toFixed(2));
      }
      return bad; })()"""

    async def told(page: "browser.Page") -> None:
        for scheme in ("light", "dark"):
            await page.prefer(scheme)
            await page.open(f"{address}/?{scheme}")
            await page.type("which animal barks at the cat")
            await page.press("Enter")
            await page.until("document.querySelectorAll('#after li').length === 10")
            await picture(page, scheme)
            assert await page.run(script) == []

    tell(told)
