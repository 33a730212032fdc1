"""The notebook runs from its first cell to its last, and is kept without outputs, which would go stale."""

import json

import pytest

ASKED = """import json
print(json.dumps([[float(x) for r in results.returns.values() for x in r.mean(axis=1)]
                  for results in (sequential, marginal)]))"""


@pytest.fixture(scope="module")
def path(root):
    return root / "docs" / "notebook.ipynb"


def test_it_is_kept_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


# 50 s of processors: two systems, trained by another process
@pytest.mark.long
def test_it_runs_from_the_first_cell_to_the_last(path, root, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs pip install 'jaxomarl[docs]'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(root))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(ASKED))

    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()

    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in shown) == 3
    sequential, marginal = json.loads(shown[-1]["text"])
    assert len(sequential) == len(marginal) == 8
    assert min(sequential) > 0.3 and min(marginal) < 0.0 < max(marginal)
    assert not list(tmp_path.iterdir()), "it writes no files"
