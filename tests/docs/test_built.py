"""The pages build without a warning, and the parts that are made from the package say what it says."""

import dataclasses
import html
import os
import re
import subprocess
import sys

import pytest

from jaxomarl.algorithms import REGISTRY

pytest.importorskip("sphinx", reason="needs `make docs`, or pip install 'jaxomarl[docs]'")


@pytest.fixture(scope="module")
def pages(root, tmp_path_factory):
    """All pages as HTML, as `make docs` builds them."""
    out = tmp_path_factory.mktemp("html")
    flags = ["-q", "-n", "-W", "--keep-going", "-d", str(out / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *flags, str(root / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return out


def text_of(path):
    """The words of a page."""
    return html.unescape(re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8")))


# Sphinx takes 18 s
@pytest.mark.long
def test_every_page_is_built_and_the_reference_is_not_empty(pages, root):
    for page in (root / "docs").glob("*.md"):
        assert len(text_of(pages / f"{page.stem}.html")) > 500, page.name
    reference = text_of(pages / "reference.html")
    for name in ("jaxomarl.train", "Spec", "Algorithm", "vp", "eps_loss", "register_task"):
        assert f"{name}(" in reference, name
    assert "Widths of the blocks that Dataset.rows packs" in reference


@pytest.mark.long
@pytest.mark.parametrize("name", REGISTRY)
def test_every_field_of_a_system_stands_in_its_table(pages, name):
    page = (pages / "fields.html").read_text(encoding="utf-8")
    section = page.partition(f'<section id="{name}">')[2].partition("</section>")[0]
    shown = re.findall(r'<tr class="row-\w+"><td><p><code[^>]*>(.*?)</code>', section)
    fields = [field.name for field in dataclasses.fields(REGISTRY[name].Config)]
    assert [re.sub(r"<[^>]+>", "", cell) for cell in shown] == fields


# --- docstrings in reStructuredText ---


@pytest.fixture(scope="module")
def as_rst(root):
    """The function of docs/from_docstrings.py."""
    sys.path.insert(0, str(root / "docs"))
    try:
        from from_docstrings import as_rst
    finally:
        sys.path.remove(str(root / "docs"))
    return as_rst


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("The |e|^2 of x_ [*B].", "The \\|e\\|^2 of x\\_ [\\*B]."),
        ("Take `a|b`.", "Take ``a|b``."),
        ("**Paper**. One.", "**Paper**. One."),
        ("Two:\n\n    x = 1\n    y = 2", "Two:\n\n::\n\n    x = 1\n    y = 2"),
        ("Three:\n- a\n  b\n- c", "Three:\n\n- a\n  b\n- c"),
        (
            "Args:\n    x: One\n        more.\n    y: Two.",
            ":param x: One\n    more.\n:param y: Two.",
        ),
    ],
)
def test_signs_of_a_docstring_mean_what_they_look_like(as_rst, docstring, expected):
    assert as_rst(docstring) == expected
