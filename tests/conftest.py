"""No test sees what this machine's user has measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path_factory.mktemp("user-data")))
        yield
