"""A second try for tests with processes, databases and clocks, which a busy machine can fail.

Responsible for which tests have one, for telling each that was needed with what failed at first,
and for failing a run that needed many: that is no busy machine. Unit and contract tests have one
try.
"""

from typing import Final

import pytest

FOLDERS: Final = ("tests/endtoend/", "tests/faults/", "tests/integration/")
MOST: Final = 4
"""A run with more second tries than this fails, whatever they came to."""

_SECOND_TRY: Final = pytest.mark.flaky(reruns=1, reruns_delay=1)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Watch(), "second-tries-watch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(FOLDERS):
            item.add_marker(_SECOND_TRY)


class _Watch:
    """Sees the reports of all workers."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome: str = report.outcome  # pytest knows nothing of this one
        if outcome == "rerun":
            self._first[report.nodeid] = report.longreprtext

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and len(self._first) > MOST:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._first:
            return
        terminalreporter.section("second tries")
        for nodeid, text in self._first.items():
            terminalreporter.write_line(f"{nodeid} failed at first:")
            for line in text.splitlines():
                if line.startswith("E  "):
                    terminalreporter.write_line(f"  {line[1:].strip()}")
        if len(self._first) > MOST:
            terminalreporter.write_line(
                f"{len(self._first)} tests needed a second try, more than {MOST}: the run fails"
            )
