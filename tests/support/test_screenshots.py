"""The program that takes README's pictures of a page: both, of the right size, small."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.review.page.examples import make_run
from tests.support.chromium import PROGRAM
from tests.support.example_records import write_example_records
from tests.support.screenshots import HEIGHT, WIDTH, main


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_both_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_example_records(run, range(0, 10, 2), groups=2, samples=4)
    main(run, tmp_path)
    for name, least in (("review_curves.png", 10), ("review_completions.png", 15)):
        with Image.open(tmp_path / name) as image:
            assert image.size == (WIDTH, HEIGHT) and len(image.getcolors() or ()) > least  # not an empty page
        assert (tmp_path / name).stat().st_size < 100_000
