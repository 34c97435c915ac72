"""Finding the application in a Python file that someone named on the command line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import msgspec
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from mainstem.app import Mainstem
from mainstem.cli.errors import ApplicationLoadError

DASHBOARD_PREFIX = "/mainstem"
"""Where the dashboard is, when the file has no web application of its own that mounts it."""

_WEB_NAMES = ("api", "app", "asgi")


class Application(msgspec.Struct, frozen=True):
    """What is to be served.

    Attributes:
        asgi: The application; its lifespan starts and stops ``mainstem``.
        mainstem: The Mainstem within.
        prefix: Path of the dashboard, without a final slash.
    """

    asgi: ASGIApp
    mainstem: Mainstem
    prefix: str


def load_application(path: Path) -> Application:
    """Import a Python file and return the application in it.

    The file defines ``ms = Mainstem(...)``, and where it has pages of its own an ASGI application ``api``, ``app`` or
    ``asgi`` that mounts ``ms.asgi``. Its directory is put in front of the import path, as Python does for a script.

    Raises:
        ApplicationLoadError: There is no such file, importing it raised (the traceback was printed to standard
            error), or it holds no Mainstem.
    """
    return find_application(_import_file(path), str(path))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ApplicationLoadError(
            f"{path}: there is no such file.", try_command="mainstem new NAME, which writes a small application"
        )
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        raise ApplicationLoadError.hides_module(path)
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ApplicationLoadError(f"{path}: expected a Python file, whose name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        traceback.print_exception(_without_own_frames(error))
        raise ApplicationLoadError(f"{path}: importing it raised {type(error).__name__}: {error}") from error
    return module


def _without_own_frames(error: Exception) -> Exception:
    """Drop the frames of this file and of the import machinery: what is left is the user's code."""
    own = (__file__, "<frozen importlib._bootstrap_external>", "<frozen importlib._bootstrap>")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename in own:
        trace = trace.tb_next
    return error.with_traceback(trace)


def find_application(module: ModuleType, where: str) -> Application:
    """Return the application among a module's names.

    Raises:
        ApplicationLoadError: There is no Mainstem, or more than one and none is called ``ms``.
    """
    names: Mapping[str, object] = vars(module)
    found = {id(value): value for value in names.values() if isinstance(value, Mainstem)}
    preferred = names.get("ms")
    if isinstance(preferred, Mainstem):
        mainstem = preferred
    elif len(found) == 1:
        mainstem = next(iter(found.values()))
    else:
        raise ApplicationLoadError(
            f"{where}: expected ms = Mainstem(...) at the module's top, found {len(found) or 'no'} Mainstem objects.",
            try_command="mainstem dev --help",
        )
    for name in _WEB_NAMES:
        web = names.get(name)
        if callable(web):
            return Application(web, mainstem, _mounted_at(web, mainstem, where, name))
    return Application(_alone(mainstem), mainstem, DASHBOARD_PREFIX)


def _mounted_at(web: object, mainstem: Mainstem, where: str, name: str) -> str:
    """Return the prefix at which a Starlette-like application mounts the dashboard."""
    if web is mainstem.asgi:
        return ""
    for route in getattr(web, "routes", ()):
        if isinstance(route, Mount) and route.app is mainstem.asgi:
            return route.path
    raise ApplicationLoadError(
        f"{where}: {name} does not mount the dashboard: expected {name}.mount({DASHBOARD_PREFIX!r}, ms.asgi) "
        "at its top level, and lifespan=ms.lifespan.",
        try_command="mainstem new NAME, to see one that works",
    )


def _alone(mainstem: Mainstem) -> Starlette:
    async def to_dashboard(_request: object) -> RedirectResponse:
        return RedirectResponse(DASHBOARD_PREFIX + "/")

    return Starlette(
        routes=[Route("/", to_dashboard), Mount(DASHBOARD_PREFIX, mainstem.asgi)], lifespan=mainstem.lifespan
    )
