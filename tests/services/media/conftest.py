"""Clips and published videos that several tests look at; each is made once in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.services.media.clips import Clips
from tests.services.media.pipeline import Published, publish


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Return the clips."""
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def published(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Published]:
    """Return a function that publishes a clip, or gives what was published of it before."""
    known: dict[str, Published] = {}

    def get(name: str) -> Published:
        if name not in known:
            result = asyncio.run(publish(clips.get(name), tmp_path_factory.mktemp("published")))
            assert isinstance(result, Published), result
            known[name] = result
        return known[name]

    return get
