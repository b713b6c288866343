"""What all tests share: what they need of the host, and that nothing is skipped unseen in CI."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests import soak
from tests.soak import amount, report

__all__ = ["amount", "report"]  # fixtures

# The same examples in every run, so that a failure is the change's; a long random hunt on demand:
# HYPOTHESIS_PROFILE=long make test
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=200)
settings.register_profile("long", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    soak.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    soak.configure(config)
    config.addinivalue_line("markers", "root: needs root, network namespaces and iptables' NFQUEUE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    soak.select(config, items)
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: network namespaces, NFQUEUE"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that did not run has not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") and skipped:
        reporter.write_line(f"\nCI: {len(skipped)} skipped tests count as failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
