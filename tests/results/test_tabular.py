"""Tables of text: what Markdown says is read back, LaTeX compiles by its rules, HTML escapes."""

import csv
import io
import re
from html.parser import HTMLParser

from jaxomarl.results import tabular

SHOWN = tabular.table(
    ("system", "mean [95 %]", "note_1"),
    [
        ("bc a|b", "1.5 [0.5, 2.5]", "x & y <b>"),
        ("[omsd]†", "-20.0 ± 3.0", "50 % of $#~^\\{}"),
        ("iql", "", ""),
    ],
    ["Scale 0.1: 10 % & less."],
)


def test_markdown_is_read_back():
    text = (
        f"# page\n\nwords\n\n{tabular.markdown(SHOWN)}\nmore | words\n\n{tabular.markdown(SHOWN)}"
    )
    found = tabular.parsed(text)
    assert found == [SHOWN._replace(notes=())] * 2
    assert tabular.parsed("a | b\nno table\n") == []
    ragged = tabular.parsed("| a | b |\n|---|---:|\n| 1 |\n| 1 | 2 |\nend")
    assert ragged[0].rows == (("1", ""), ("1", "2"))


def test_a_column_of_numbers_is_one_where_every_cell_begins_with_one():
    assert tabular.numeric(SHOWN) == (False, True, False)
    assert tabular.numeric(tabular.table(("a", "b"), [])) == (False, False)


def test_csv_is_head_and_rows():
    rows = list(csv.reader(io.StringIO(tabular.csv_text(SHOWN))))
    assert rows == [list(SHOWN.head), *map(list, SHOWN.rows)]


def test_latex_is_a_tabular_of_booktabs():
    text = tabular.latex(SHOWN)
    lines = text.splitlines()
    assert lines[1] == r"\begin{tabular}{lrl}" and r"\end{tabular}" in lines
    assert [x for x in lines if x.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 3 and all(line.endswith(r" \\") for line in body)
    # exactly two separators a row, and no special character without its escape
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == 2
        assert not re.search(r"(?<!\\)[%#_]", line)
    assert body[0].startswith(r"bc a\textbar{}b & 1.5 [0.5, 2.5] & x \& y \textless{}b")
    assert body[1].startswith(r"{}[omsd]$\dagger$ & -20.0 $\pm$ 3.0 & 50 \% of \$\#")
    assert r"10 \% \& less." in lines[-1]


def test_html_escapes_and_marks_numbers():
    text = tabular.html(SHOWN, "final <returns>", grey=[2])
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs).get("class")))

    Reader().feed(text)
    assert "<b>" not in text and "final &lt;returns&gt;" in text
    assert [kind for tag, kind in seen if tag == "td"] == [None, "number", None] * 3
    assert [kind for tag, kind in seen if tag == "tr"] == [None, None, None, "grey"]


def test_files_stand_next_to_the_path(tmp_path):
    files = tabular.write(tmp_path / "dom2.csv", SHOWN)
    assert [file.name for file in files] == ["dom2.csv", "dom2.tex"]
    assert files[0].read_text() == tabular.csv_text(SHOWN)


def test_a_column_of_digests_is_no_column_of_numbers():
    cells = [("84df9431", "nan", "1e-05 ± 2", "32 fresh"), ("99e98759ec22", "-0.5*", "1,000", "")]
    shown = tabular.table(["hash", "mean", "loss", "episodes"], cells)
    assert tabular.numeric(shown) == (False, True, True, True)


def test_commands_and_flags_of_a_sentence_are_marked():
    text = tabular.html_text("call `jaxomarl health RUN`: raise --cfg.policy-steps, a--b < c")
    flag = '<span class="flag">--cfg.policy-steps</span>'
    assert text == f"call <code>jaxomarl health RUN</code>: raise {flag}, a--b &lt; c"
