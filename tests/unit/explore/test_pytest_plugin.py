"""The pytest plugin, used by pytest as a user's test suite does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

SCENARIOS = """
    from yaoki.explore import FakeService, scenario
    from yaoki.errors import InDoubtError, RefusedError

    payment = FakeService("payment")

    async def pay(key):
        for _ in range(12):
            try:
                return await payment.book("order-7", key=key)
            except (InDoubtError, RefusedError):
                pass

    @scenario
    async def test_with_a_key():
        await pay("order-7")

    @scenario
    async def test_without_a_key():
        await pay(None)

    def test_by_hand(explore):
        async def checkout():
            await pay("order-7")

        report = explore(checkout)
        assert report.executions > 10
"""


def run(folder, *words, only_ours=True):
    """pytest in another process. only_ours: without the other plugins that are installed here, which take longer to load than the rest."""
    ours = ["-p", "yaoki.explore.pytest_plugin"] if only_ours else []
    env = {**os.environ, **({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if only_ours else {})}
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *ours, *words], cwd=folder, env=env,
                          capture_output=True, text=True, check=False, timeout=150)


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "test_shop.py").write_text(textwrap.dedent(SCENARIOS))
    (tmp_path / "test_other.py").write_text("from test_shop import test_with_a_key\n")  # imported: tested where it is defined
    return tmp_path


def test_each_scenario_is_a_test_and_a_failure_is_its_story(suite):
    done = run(suite, "--junit-xml=out.xml", only_ours=False)  # found by its entry point
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "no_double_effect: payment booked order-7 2 times" in done.stdout
    assert "replay: --replay 'yk1:payment.book@0=call.lost_ack'" in done.stdout
    assert "Traceback" not in done.stdout
    xml = (suite / "out.xml").read_text()
    assert 'name="yaoki.replay" value="yk1:payment.book@0=call.lost_ack"' in xml
    assert 'name="yaoki.executions"' in xml


def test_a_replay_runs_one_execution(suite):
    done = run(suite, "test_shop.py::test_without_a_key", "--yaoki-replay", "yk1:payment.book@0=call.lost_ack")
    assert "1 failed" in done.stdout
    assert "⚡ call.lost_ack" in done.stdout
    assert "1 passed" in run(suite, "test_shop.py::test_without_a_key", "--yaoki-replay", "yk1:payment.book@0=call.reject").stdout


def test_a_corpus_is_kept_and_run_first(suite):
    (suite / "pytest.ini").write_text("[pytest]\nyaoki_corpus = corpus.txt\n")
    run(suite, "test_shop.py::test_without_a_key")
    assert "test_without_a_key yk1:payment.book@0=call.lost_ack" in (suite / "corpus.txt").read_text()


def test_it_is_inert_when_unused():
    """The plugin is loaded in every program that has Yaoki installed: it must not load the explorer."""
    code = "import sys, yaoki.explore.pytest_plugin; print([m for m in sys.modules if m.startswith('yaoki.explore.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['yaoki.explore.pytest_plugin']"
