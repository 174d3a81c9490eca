"""What an exploration leaves behind: reports, pages, diagrams, tests, the corpus, and where to go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest

from yaoki.cli.frame.root import run as yk
from yaoki.errors import ConfigError
from yaoki.explore import FakeQueue, FakeService, Scenario, corpus, drawing, explore, page, search
from yaoki.explore.plan import PLAIN
from yaoki.explore.report import NOTHING_THERE, Report
from yaoki.explore.story import Line

shop = FakeService("shop")


async def pay() -> str:
    for _ in range(12):
        try:
            await shop.book("order-7")
        except Exception:
            continue
        return "paid"
    return "not paid"


@pytest.fixture
def report() -> Report:
    return explore(Scenario(pay, name="pay"), faults=1)


@pytest.mark.parametrize("seconds", [0.0, 0.2849999, 0.0100004, 12.3456789])
def test_a_report_survives_json(report, seconds):
    report.seconds = seconds
    data = json.loads(json.dumps(report.to_dict()))
    again = Report.from_dict(data)
    assert again.to_dict() == report.to_dict()
    assert again.text() == report.text()


def test_the_page_holds_the_story_and_escapes_what_it_shows(report):
    report.name = "<script>alert(1)</script>"
    text = page.html(report)
    assert "<script>" not in text
    assert "no_double_effect" in text
    assert "http" not in text, "a page that asks for nothing from anywhere"


def test_the_diagram_and_the_test_are_what_they_should_be(report, tmp_path):
    assert drawing.mermaid(report.stories[0]).startswith("sequenceDiagram\n    participant p0 as main")
    (tmp_path / "shop_program.py").write_text(
        "from yaoki.explore import FakeService, scenario\nshop = FakeService('shop')\n\n@scenario\nasync def pay():\n"
        "    for _ in range(12):\n        try:\n            return (await shop.book('order-7')).item\n        except Exception:\n            pass\n")
    (tmp_path / "test_found.py").write_text(drawing.as_test(report.stories[0], "shop_program:pay"))
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert "1 failed" in done.stdout, done.stdout
    assert "no_double_effect" in done.stdout


def test_the_corpus_keeps_each_token_once_and_runs_it_first(report, tmp_path):
    path = tmp_path / "corpus.txt"
    assert corpus.add(path, "pay", [report.stories[0].token] * 2) == 1
    assert corpus.add(path, "pay", [report.stories[0].token]) == 0
    assert corpus.load(path, "pay") == [(report.stories[0].plan, PLAIN)]
    assert corpus.load(path, "other") == []
    assert explore(Scenario(pay, name="pay"), faults=0, corpus=path).found
    path.write_text("pay yk1:what?\n")
    with pytest.raises(ConfigError, match=r"corpus\.txt:1"):
        corpus.load(path, "pay")


def test_a_stopped_exploration_goes_on_where_it_was(tmp_path):
    whole = explore(Scenario(pay, name="pay"), faults=2)
    path = tmp_path / "progress.json"
    rounds = 0
    while True:
        rounds += 1
        part = explore(Scenario(pay, name="pay"), faults=2, most=20 * rounds, resume=path)
        if not part.stopped:
            break
        assert rounds < 50
    assert rounds > 2
    assert part.exhausted
    assert set(part.signatures) == set(whole.signatures)
    assert part.by_depth[2] == whole.by_depth[2]
    with pytest.raises(ConfigError, match="another exploration"):
        explore(Scenario(pay, name="pay"), faults=1, resume=path)


def test_an_exploration_that_is_killed_goes_on_where_it_last_kept_how_far_it_was(tmp_path, monkeypatch):
    whole = explore(Scenario(pay, name="pay"), faults=2)
    path = tmp_path / "progress.json"
    monkeypatch.setattr(search, "KEEP_EVERY_S", 0.0)

    def die(report: Report) -> None:
        if report.by_depth[2] > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(Scenario(pay, name="pay"), faults=2, progress=die, resume=path)
    kept = json.loads(path.read_bytes())["report"]
    assert not kept["exhausted"]
    assert 0 < kept["by_depth"]["2"] < whole.by_depth[2]
    rest = explore(Scenario(pay, name="pay"), faults=2, resume=path)
    assert rest.exhausted
    assert rest.by_depth[2] == whole.by_depth[2]
    assert rest.signatures[("no_double_effect",)] == whole.signatures[("no_double_effect",)]


def test_what_can_do_nothing_at_a_point_is_counted_and_not_executed(monkeypatch):
    queue = FakeQueue("mail")

    async def one_message() -> str:
        await queue.send("hello")
        message = await queue.receive()
        await queue.ack(message)
        return message.body

    executed = []
    execute = Scenario.execute

    def seen(scenario, plan, *args, **kwargs):
        executed.append(plan)
        return execute(scenario, plan, *args, **kwargs)

    monkeypatch.setattr(Scenario, "execute", seen)
    report = explore(Scenario(one_message, name="one"), faults=1, kinds=["msg.reorder", "msg.duplicate"])
    assert report.pruned[NOTHING_THERE] == 1, "one message has nothing to be overtaken by"
    assert {fault.fault for plan in executed for fault in plan} == {"msg.duplicate"}


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop_two.py").write_text(
        "from yaoki.explore import FakeService, scenario\nfrom yaoki.saga.define import Saga\nshop = FakeService('shop')\n\n@scenario\nasync def good():\n"
        "    for _ in range(12):\n        try:\n            return (await shop.book('order-7', key='k')).item\n        except Exception:\n            pass\n")
    assert yk(["explore", "shop_two:good", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"]
    assert data["executions"] > 10
    assert yk(["explore", "shop_two", "--most", "3"]) == 3
    capsys.readouterr()
    assert yk(["explore", "shop_two:nothing"]) == 2
    assert "name one: shop_two:good" in capsys.readouterr().err
    assert yk(["explore", "shop_two", "--kind", "call.rejekt"]) == 2
    assert "call.reject" in capsys.readouterr().err
    assert yk(["explore", "shop_two", "--replay", "yk1:shop.book@0=call.lost_ack"]) == 0
    assert "⚡ call.lost_ack" in capsys.readouterr().out


def test_a_struck_call_is_drawn_as_what_it_is(report):
    """A request that is lost ends in a cross; one that arrives does not, and its answer does."""
    story = report.stories[0]
    lost = msgspec.structs.replace(story, lines=(Line(0.0, "main", "→ shop.book  ⚡ call.timeout:none", "shop", "call.timeout:none"),))
    unheard = msgspec.structs.replace(story, lines=(Line(0.0, "main", "→ shop.book  ⚡ call.lost_ack", "shop", "call.lost_ack"),))
    assert "p0-xp1: book ⚡ call.timeout:none" in drawing.mermaid(lost)
    assert "p0->>p1: book ⚡ call.lost_ack\n    p1--xp0: no answer" in drawing.mermaid(unheard)
    assert page.diagram(lost).count("class=bad d=") == 0
    assert page.diagram(unheard).count("class=bad d=") == 1


def test_of_a_story_that_does_not_end_the_beginning_and_the_end_are_told(report):
    lines = tuple(Line(float(number), "main", f"→ shop.book {number}", "shop") for number in range(1000))
    story = msgspec.structs.replace(report.stories[0], lines=lines)
    for text in ("\n".join(story.timeline()), drawing.mermaid(story), page.diagram(story)):
        assert "book 0" in text
        assert "book 999" in text
        assert "book 500" not in text
        assert "lines more of the same" in text
