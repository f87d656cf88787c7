"""What the site's files ask for, and where their links lead."""

from __future__ import annotations

import re
from importlib.metadata import version
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import yaml

from built_site import frames_of, lab_cells, read_pages
from nbval_pictures import ROOT

ELSEWHERE = re.compile(r"^\s*(?:[a-z][a-z+.-]*:)?//", re.I)
IN_CSS = re.compile(r"url\(\s*['\"]?([^'\")]*)|@import\s+['\"]([^'\"]*)", re.I)
# what a script could reach another host with
IN_JS = re.compile(
    r"(?:\bfetch|\bimport|\bimportScripts|new\s+(?:WebSocket|EventSource|Worker|Image)|\bfrom"
    r"|\.src\s*=|\.open)\s*\(?\s*['\"`]((?:https?:|wss?:)?//[^'\"`]*)"
)
ADDRESS = re.compile(r"(?:https?:|wss?:)//[\w.-]+[^\s'\"`)<]*")
INERT = {  # addresses in scripts that are names, or words for who reads the script
    "http://www.w3.org/2000/svg": "the name of a language",
    "https://pydata-sphinx-theme.readthedocs.io/en/stable/user_guide/version-dropdown.html": (
        "in a warning of the theme to who makes a site with several versions"
    ),
}


def without_comments(script: str) -> str:
    return re.sub(r"/\*.*?\*/|(?m:^\s*//.*$)", "", script, flags=re.S)


def test_pages_load_nothing_from_elsewhere(site):
    loads = 0
    for page in read_pages(site).values():
        for tag, name, value in page.addresses:
            if tag == "a" and name == "href":
                continue
            loads += 1
            for address in value.split(",") if name == "srcset" else [value]:
                assert not ELSEWHERE.match(address), (page.page, tag, value)
        for code in page.code:
            found = [*filter(None, sum(IN_CSS.findall(code), ())), *IN_JS.findall(code)]
            assert not [address for address in found if ELSEWHERE.match(address)], page.page
    assert loads > 1000


def test_styles_and_scripts_load_nothing_from_elsewhere(site):
    styles, scripts = [*site.rglob("*.css")], [*site.rglob("*.js")]
    assert len(styles) > 4 and len(scripts) > 8
    for path in styles:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
        for address in filter(None, sum(IN_CSS.findall(text), ())):
            assert not ELSEWHERE.match(address), (path.name, address)
    for path in scripts:
        text = without_comments(path.read_text(encoding="utf-8"))
        assert IN_JS.findall(text) == [], path.name
        if path.name != "searchindex.js":  # words of the pages
            assert {*ADDRESS.findall(text)} <= INERT.keys(), path.name


def test_links_lead_somewhere(site):
    pages, lead = read_pages(site), 0
    for page in pages.values():
        for tag, name, value in page.addresses:
            parts = urlsplit(value)
            if parts.scheme or parts.netloc or name == "srcset":
                continue
            address, anchor = urldefrag(urljoin(f"/{page.page}", value))
            path = unquote(urlsplit(address).path).lstrip("/")
            target = site / path
            assert target.is_file(), (page.page, tag, value)
            if anchor and path in pages:
                assert unquote(anchor) in pages[path].ids, (page.page, value)
            lead += 1
    assert lead > 3000


def test_links_of_the_same_project_do_not_climb_out_of_the_site(site):
    """Else they would lead astray below another address; absolute ones would, too."""
    for page in read_pages(site).values():
        for tag, _, value in page.addresses:
            assert not value.startswith("/"), (page.page, tag, value)
            depth = page.page.count("/")
            assert value.count("../") <= depth, (page.page, tag, value)


@pytest.mark.parametrize("name", lab_cells())
def test_a_file_of_frames_is_small(site, name):
    path = site / "_static" / "labs" / f"{name}.frames"
    assert 10_000 < path.stat().st_size <= 3_000_000
    assert len(frames_of(site, name).frames) > 40


def test_the_site_is_made_with_the_versions_that_are_pinned(site):
    pins = re.findall(r"^([\w-]+)==([\d.]+)  #", (ROOT / "requirements-site.txt").read_text(), re.M)
    assert {name: version(name) for name, _ in pins} == dict(pins)
    assert len(pins) >= 6


def test_the_workflow_builds_and_publishes_with_few_rights():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text()
    workflow = yaml.safe_load(text)
    make = re.findall(r"\bmake ([\w -]+?)(?= [A-Z_]+=|$)", text, re.M)
    assert make == ["site"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {target for line in make for target in line.split()} <= {*targets}
    assert workflow[True] == {"push": {"branches": ["main"]}, "workflow_dispatch": None}  # "on"
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert workflow["permissions"] == {}
    assert build["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    python = next(step for step in build["steps"] if "setup-python" in step.get("uses", ""))
    assert python["with"] == {"python-version": "3.11"}
    upload = next(step for step in build["steps"] if "upload-pages" in step.get("uses", ""))
    assert upload["with"] == {"path": "site"}
