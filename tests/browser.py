"""A headless Chromium that sees no network, for tests that look at pages as people do."""

import shutil
from contextlib import contextmanager

import pytest

LAPTOP = {"width": 1280, "height": 800}


@contextmanager
def browsing(*, local: bool = False, **settings):
    """Give a page, and what went wrong on it: console messages, errors, requests to anywhere.

    With `local`, addresses of this machine are allowed.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_context(**{"viewport": LAPTOP, **settings}).new_page()
        wrong = []

        def judge(route) -> None:
            local_addresses = ("http://127.0.0.1:", "http://localhost:") if local else ()
            if route.request.url.startswith(("file:", "data:", "blob:", *local_addresses)):
                route.continue_()
            else:
                wrong.append(f"asks for {route.request.url}")
                route.abort()

        page.route("**/*", judge)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda line: line.type in ("error", "warning") and wrong.append(line.text))
        try:
            yield page, wrong
        finally:
            browser.close()
