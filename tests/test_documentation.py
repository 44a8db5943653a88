"""What the documentation points to is there, and light."""

import re
from pathlib import Path

import pytest

import datasets.augment

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), REPOSITORY / "docker/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_and_tools_that_are_named_exist(page):
    named = re.findall(r"(?<![\w/.])((?:tools|configs|docker|docs)/[\w/]+\.\w+)", page.read_text())
    assert not [path for path in named if not (REPOSITORY / path).exists()]


def test_every_augmentation_is_described():
    text = (REPOSITORY / "docs" / "augmentation.md").read_text()
    kinds = set(datasets.augment.__all__) - {"Transform", "move_sample"}
    assert not [name for name in kinds if name not in text]


def test_pictures_are_light_and_used():
    pictures = list((REPOSITORY / "docs").rglob("*.png"))
    assert pictures and sum(path.stat().st_size for path in pictures) < 1e6
    text = "".join(page.read_text() for page in PAGES)
    assert not [path.name for path in pictures if path.name not in text]
