"""Takes the pictures of a run's page that stand in README.md, by a headless Chromium (`chromium.py`).

    python tests/support/screenshots.py RUN [FOLDER]     # FOLDER: docs/images

writes `review_curves.png`, the top of the page, and `review_completions.png`, the first prompt of the newest rollout that some
answered rightly and some wrongly, its tokens coloured by advantage. RUN is the folder of a run that has records.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a program: the checkout, installed or not

from PIL import Image

from r1_lightning.review.page.document import look, write_page
from tests.support.chromium import Browser

WIDTH, HEIGHT = 1100, 700
COLOURS = 64  # of a picture: 40 to 60 KB, and as sharp
CONTENTIOUS = """(() => {
  const right = group => group.querySelector("h4").textContent.match(/(\\d+) of (\\d+) right/);
  const groups = [...document.querySelectorAll("#rollouts .step")].pop().querySelectorAll(".group");
  const chosen = [...groups].find(group => (m => m && 0 < +m[1] && +m[1] < +m[2])(right(group))) ?? groups[0];
  for (let box = chosen; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
  chosen.scrollIntoView();
  scrollBy(0, -document.getElementById("tools").offsetHeight);
})()"""
SETTLED = "new Promise(done => setTimeout(done, 500))"  # tokens are coloured once they are seen


def take(browser: Browser, out: Path) -> None:
    """Write what the browser shows to `out`, in few colours."""
    shot = browser.call("Page.captureScreenshot", format="png")["data"]
    with Image.open(io.BytesIO(base64.b64decode(shot))) as image:
        image.convert("RGB").quantize(COLOURS).save(out, optimize=True)


def show(browser: Browser, page: Path) -> None:
    """Open the page of a run in a window of the pictures' size."""
    browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)
    browser.go(page.as_uri())
    browser.ask(SETTLED)


def main(run: Path, folder: Path) -> None:
    """Write both pictures of the page of `run` into `folder`."""
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "review.html"
        write_page(look(run), None, page)
        with Browser(Path(place)) as browser:
            show(browser, page)
            take(browser, folder / "review_curves.png")
            browser.choose("#colour", "A")
            for _ in range(2):  # what is laid out on the way moves it
                browser.ask(CONTENTIOUS)
                browser.ask(SETTLED)
            take(browser, folder / "review_completions.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(*sys.argv[2:3]) if sys.argv[2:] else Path("docs/images"))
