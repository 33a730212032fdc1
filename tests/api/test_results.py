"""What `jaxomarl.train` shows and gives: progress, tables, policies without a folder, figures only where asked for."""

import io
import sys

import numpy as np
import pytest

import jaxomarl
from jaxomarl.api import progress
from jaxomarl.api.plan import Group
from jaxomarl.api.session import Results
from jaxomarl.base import JaxomarlError
from jaxomarl.training.program import Progress

TINY = {"rows": 40, "episodes": 2, "final_episodes": 3, "scale": 0.003}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of a clone at two rates, and their folder."""
    out = tmp_path_factory.mktemp("trained") / "out"
    results = jaxomarl.train(
        "bc", "games/bandit", seeds="4:6", policy_lr=[1e-3, 1e-2], out=out, progress=False, **TINY
    )
    return results, out


# --- progress ---


def test_it_is_shown_by_default_and_silent_where_asked(capfd):
    jaxomarl.train("bc", "games/bandit", **TINY)
    shown = capfd.readouterr()
    assert "updates x 1" in shown.err and "final evaluation" in shown.err and not shown.out
    jaxomarl.train("bc", "games/bandit", progress=False, **TINY)
    shown = capfd.readouterr()
    assert not shown.err and not shown.out


def test_a_report_takes_the_place_of_the_line(capfd):
    told = []

    class Own:
        """A user's logger, told while it trains and at the end."""

        def __init__(self):
            self.names = []

        def start(self, run):
            self.names.append(run.cell)

        def log(self, run, step, values):
            self.names += values

        def close(self):
            self.names.append("closed")

    report = lambda group, p: told.append(p.step)
    own = Own()
    jaxomarl.train("bc", "games/bandit", report=report, log=own, **TINY)
    assert told and "updates x" not in capfd.readouterr().err
    assert (own.names[0], own.names[-1]) == ("bc games/bandit std0.3", "closed")
    assert {"policy/policy_loss", "policy/return", "final/return"} <= set(own.names)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(stream, notebook):
    """What is printed of two chunks of a stage, and a line of its own between them."""
    group = Group.__new__(Group)
    group.name = "bc"
    printer = progress.ProgressPrinter(stream, notebook)
    for step, bad in ((1, ()), (2, ("seed 1",))):
        printer(group, Progress("policy", step, 2, 1, 1.0, 1.0, 1.0, {}, {}, bad=bad))
    return stream.getvalue()


def test_a_line_is_rewritten_on_a_terminal_and_in_a_notebook(monkeypatch):
    assert "\r\x1b[K" in lines(Terminal(), notebook=False)
    shown = lines(io.StringIO(), notebook=True)
    assert "\x1b" not in shown and shown.count("\r") == shown.count("bc") and shown.endswith("\n")
    plain = lines(io.StringIO(), notebook=False)
    assert "\r" not in plain and plain.count("\n") == plain.count("bc")

    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 3600.0)
    assert lines(io.StringIO(), notebook=True).count("1/2") == 1


def test_a_notebook_is_noticed(monkeypatch):
    assert not progress.in_notebook()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(
        sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: shell)})
    )
    assert progress.in_notebook()
    assert progress.ProgressPrinter().stream is sys.stdout


# --- tables ---


def test_its_representation_is_short(trained):
    results, out = trained
    assert (
        repr(results)
        == f"<Results of 4 runs: bc on games/bandit/std0.3, in {out}; .table shows the scores>"
    )
    shown = results._repr_html_()
    assert shown.startswith("<table>") and shown.count("<tr") == 3 and "policy_lr=0.001" in shown
    assert all(cell in results.table for cell in ("bc", "policy_lr=0.01"))


def test_html_is_escaped(trained):
    (first, *_), _ = trained[0].records, trained[1]
    odd = first._replace(task="<b>&", swept="<script>")
    shown = Results(None, [odd], [], [], [], [])._repr_html_()
    assert (
        "<script>" not in shown
        and "<b>" not in shown
        and "&lt;script&gt;" in shown
        and "&lt;b&gt;&amp;" in shown
    )
    assert Results(None, [], [], [], [], [])._repr_html_().startswith("<table>")


# --- policies ---


def test_a_policy_without_a_folder_is_the_one_in_the_folder(trained):
    results, _ = trained
    obs = np.ones((2, 1))
    for run in results.runs:
        given = results.policy(run.info["seed"], "bc", policy_lr=run.info["swept"]["policy_lr"])
        assert given.info is run.info
        np.testing.assert_array_equal(given.act(obs), jaxomarl.load(run.path).act(obs))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"seed": 4},
            "policy: expected what names one run, found '2 of: seed=4 system=bc policy_lr=0.001; seed=4",
        ),
        (
            {"seed": 7},
            "policy: expected what names a run, found '0 of: seed=4 system=bc policy_lr=0.001; seed=5",
        ),
        ({"seed": 4, "system": "iql"}, "policy: expected what names a run"),
        ({"seed": 4, "policy_lr": 0.5}, "policy: expected what names a run"),
        ({"seed": 4, "nonsense": 1}, "policy: expected what names a run"),
    ],
)
def test_a_policy_that_is_not_named(trained, asked, said):
    with pytest.raises(JaxomarlError) as error:
        trained[0].policy(**asked)
    assert str(error.value).startswith(said)


# --- figures ---


@pytest.mark.parametrize("kind", ["returns", "intervals"])
def test_a_figure_is_drawn_and_written_only_where_asked(trained, kind, tmp_path, monkeypatch):
    results, out = trained
    monkeypatch.chdir(tmp_path)
    assert results.figure(kind).axes
    assert not list(tmp_path.iterdir()) and not list(out.glob("*.png"))
    results.figure(kind, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_figures_that_are_not_there(trained):
    with pytest.raises(
        JaxomarlError,
        match=r"^kind: expected one of returns, intervals, directions, found 'return'",
    ):
        trained[0].figure("return")
    with pytest.raises(
        JaxomarlError, match=r"^kind: expected score models on a game.*bc on games/bandit"
    ):
        trained[0].figure("directions")


# --- errors ---


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"policy_lr": -1.0}, "policy_lr"),
        ({"seeds": 0}, "seeds"),
        ({"preset": "none"}, "preset"),
        ({"preset": "particle"}, "preset"),
        ({"augment": "x"}, "augment"),
    ],
)
def test_the_field_is_the_argument(wrong, field):
    with pytest.raises(JaxomarlError) as error:
        jaxomarl.train("bc", "games/bandit", **wrong)
    assert error.value.field == field and str(error.value).startswith(f"{field}=: ")
