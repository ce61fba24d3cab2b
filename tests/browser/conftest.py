"""A browser on the application over fakes; skips with the reason where no Chromium is installed."""

import shutil
from collections.abc import Iterator

import pytest

from tests.serving.conftest import parts, served  # noqa: F401

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


# Not for the whole session: its event loop would run on under every test that comes after.
@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()
