"""The report in a real browser: every chart is drawn, in both schemes, and nothing is asked for."""

import json
from pathlib import Path

import optuna
import pytest
from support.browser_fixtures import OpenPage
from support.sweep_study import make_sweep

from vfsearch.search.analysis import trials_table
from vfsearch.search.report import ReportExtras, write_report

pytestmark = pytest.mark.browser
STATES = (".state.COMPLETE", ".state.PRUNED", ".state.FAIL", ".state.RUNNING", ".kicker")
COUNT = "selector => document.querySelectorAll(selector).length"


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return make_sweep()


@pytest.fixture(scope="module")
def report(study: optuna.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    best = study.best_trial
    extras = ReportExtras(
        intervals={best.number: (best.values[0] - 0.02, best.values[0] + 0.02)},
        verdict="Trials 1 and 2 are not distinguishable.",
        gpus_per_trial=2,
        dollars_per_gpu_hour=2.5,
    )
    return write_report(study, tmp_path_factory.mktemp("report") / "report.html", extras)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_every_chart_is_drawn(
    report: Path, study: optuna.Study, open_page: OpenPage, scheme: str, width: int
) -> None:
    opened = open_page(report, scheme=scheme, width=width)
    page = opened.page
    assert opened.requests == []
    assert opened.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    def count(selector: str) -> int:
        return int(page.evaluate(COUNT, selector))

    states = [trial.state.name for trial in study.trials]
    assert count("[data-chart=history] .frame .mark") == len(states)
    assert count("[data-chart=history] .frame .mark.PRUNED") == states.count("PRUNED")
    assert count("[data-chart=history] .frame .mark.FAIL") == states.count("FAIL")
    assert count("[data-chart=curves] .curve") == len(states)
    assert count("[data-chart=timeline] .bar") == len(states)
    assert count("[data-chart=parallel] .thread") == len(states)
    assert count("[data-chart=parallel] .axis") == 6
    assert count("[data-chart=importance] .weight") == 5
    assert count("[data-chart=slices] svg > g") == 5
    assert count("[data-chart=contours] .blank") == 3
    assert count("[data-chart=contours] .area") >= 9
    assert not page.evaluate("document.querySelector('main').innerHTML.includes('NaN')")
    # Text is legible on its card: at least 4.5 : 1 (WCAG AA) for notes and for axis labels.
    for selector in (".note", "[data-chart=history] .axes text", "h2", *STATES):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


CONTRAST = """selector => {
  const lum = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const node = document.querySelector(selector);
  const style = getComputedStyle(node);
  const ink = lum(node instanceof SVGElement ? style.fill : style.color);
  const card = lum(getComputedStyle(document.querySelector('.card')).backgroundColor);
  return (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05);
}"""


def test_points_lie_where_the_numbers_say(
    report: Path, study: optuna.Study, open_page: OpenPage
) -> None:
    page = open_page(report).page
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('[data-chart=history] .frame circle')]
          .map(c => [+c.dataset.trial, +c.getAttribute('cx'), +c.getAttribute('cy')])"""
    )
    rows = {row.number: row for row in trials_table(study)}
    xs = {number: x for number, x, _ in drawn}
    ys = {number: y for number, _, y in drawn}
    low, high = min(xs), max(xs)
    step = (xs[high] - xs[low]) / (high - low)
    values = {number: rows[number].reached[0] or 0.0 for number in ys}
    worst, best = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    slope = (ys[best] - ys[worst]) / (values[best] - values[worst])
    for number in ys:
        assert xs[number] == pytest.approx(xs[low] + step * (number - low), abs=0.01)
        assert ys[number] == pytest.approx(
            ys[worst] + slope * (values[number] - values[worst]), abs=0.01
        )


def test_pointing_shows_a_trial_everywhere_and_escape_lets_go(
    report: Path, study: optuna.Study, open_page: OpenPage
) -> None:
    page = open_page(report).page
    best = study.best_trial
    page.hover(f"[data-chart=history] .mark[data-trial='{best.number}']")
    tip = page.inner_text("#tip")
    assert f"Trial {best.number} · COMPLETE" in tip
    for name in best.params:
        assert name in tip
    lit = set(page.evaluate("[...document.querySelectorAll('.lit')].map(n => n.dataset.trial)"))
    assert lit == {str(best.number)}
    page.click(f"[data-chart=history] .mark[data-trial='{best.number}']")
    page.mouse.move(2, 2)
    assert page.evaluate(COUNT, ".lit") > 5
    page.keyboard.press("Escape")
    assert page.evaluate(COUNT, ".lit") == 0
    assert not page.is_visible("#tip")


def test_a_brush_keeps_the_trials_in_its_range(report: Path, open_page: OpenPage) -> None:
    page = open_page(report).page
    grip = page.locator("[data-chart=parallel] .grip").last
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(x, box["y"] + 90, steps=4)
    page.mouse.up()
    total = page.evaluate(COUNT, ".thread")
    out = page.evaluate(COUNT, ".thread.out")
    assert 0 < out < total
    kept = page.evaluate(
        """() => [...document.querySelectorAll('.thread:not(.out)')].map(t => +t.dataset.trial)"""
    )
    data = json.loads(page.inner_text("#data") or page.evaluate("data.textContent"))
    reached = {t["number"]: t["reached"][0] for t in data["trials"] if t["reached"][0] is not None}
    assert sorted(kept) == sorted(sorted(reached, key=lambda n: -reached[n])[: len(kept)])
    page.mouse.click(x, box["y"] + 150)
    assert page.evaluate(COUNT, ".thread.out") == 0


def test_tables_say_what_the_study_says(
    report: Path, study: optuna.Study, open_page: OpenPage
) -> None:
    page = open_page(report).page
    first = page.inner_text("#leaderboard tbody tr:first-child").split()
    assert first[1] == str(study.best_trial.number)
    assert first[2] == f"{study.best_value:.4f}"
    assert page.inner_text(".verdict") == "Trials 1 and 2 are not distinguishable."
    page.click("#trials summary")
    assert page.evaluate(COUNT, "#trials tbody tr") == 60
    assert "out of memory: CUDA out of memory" in page.inner_text("#trials")
    shares = page.evaluate(
        """() => [...document.querySelectorAll('#hours tbody td:nth-child(3)')]
          .map(cell => parseFloat(cell.innerText))"""
    )
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert "$" in page.inner_text("#hours tfoot")
    policies = page.evaluate(
        """() => [...document.querySelectorAll('#stopping tbody th')].map(cell => cell.innerText)"""
    )
    assert policies == ["as run", "none", "asha", "median"]


def test_several_objectives_show_their_front(tmp_path: Path, open_page: OpenPage) -> None:
    study = make_sweep(60, objectives=2, seed=3)
    opened = open_page(write_report(study, tmp_path / "report.html"))
    assert opened.complaints == []
    front = {trial.number for trial in study.best_trials}
    assert len(front) > 1
    rows = opened.page.evaluate(
        "() => [...document.querySelectorAll('#leaderboard tbody tr')].map(r => +r.dataset.trial)"
    )
    assert set(rows) == front
    labels = opened.page.evaluate(
        """() => [...document.querySelectorAll('[data-chart=pareto] .direct')]
          .map(t => +t.textContent)"""
    )
    assert set(labels) == front
    assert opened.page.evaluate(COUNT, "[data-chart=parallel] .axis") == 7


def test_a_minimised_objective_has_its_best_at_the_bottom(
    tmp_path: Path, open_page: OpenPage
) -> None:
    study = optuna.create_study(direction="minimize", study_name="down")
    study.optimize(lambda t: (t.suggest_float("x", -1, 1)) ** 2, n_trials=15)
    opened = open_page(write_report(study, tmp_path / "report.html"))
    assert opened.complaints == []
    best = opened.page.evaluate("+document.querySelector('.mark.best[data-trial]').dataset.trial")
    assert best == study.best_trial.number
    strongest = opened.page.evaluate(
        """() => [...document.querySelectorAll('.thread')].map(t =>
          [+t.dataset.trial, +t.className.baseVal.match(/l(\\d)/)[1]])"""
    )
    levels = dict(strongest)
    assert levels[best] == max(levels.values()) > min(levels.values())


@pytest.mark.parametrize("trials", [0, 1])
def test_a_sweep_without_results_says_so(tmp_path: Path, open_page: OpenPage, trials: int) -> None:
    opened = open_page(write_report(make_sweep(trials), tmp_path / "report.html"))
    assert opened.complaints == []
    words = "This sweep has no trials yet" if not trials else "No trial has completed yet."
    assert words in opened.page.inner_text("main")


def test_names_cannot_break_out(tmp_path: Path, open_page: OpenPage) -> None:
    evil = "</script><script>document.title='owned'</script><img src=https://example.org/x>"
    study = optuna.create_study(study_name=evil, direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("reason", evil)
        return trial.suggest_float(evil, 0, 1) + len(trial.suggest_categorical("c", [evil, "b"]))

    study.optimize(objective, n_trials=12)
    opened = open_page(write_report(study, tmp_path / "report.html"))
    assert opened.requests == []
    assert opened.complaints == []
    assert opened.page.title() == f"Sweep {evil}"


def test_report_is_the_same_twice_and_whole(study: optuna.Study, tmp_path: Path) -> None:
    one = write_report(study, tmp_path / "a.html").read_bytes()
    assert write_report(study, tmp_path / "b.html").read_bytes() == one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
    assert b"http" not in one.replace(b"http://www.w3.org/2000/svg", b"").replace(
        b"http-equiv", b""
    )
