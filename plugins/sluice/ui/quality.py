"""The pages of Data Docs on Airflow's API server: whoever may read a DAG may read what its checks found.

Each route asks for Airflow's own login and permission itself: those of a plugin are public unless they do.
"""

from __future__ import annotations

import logging
from typing import Annotated
from urllib.parse import quote, urlencode
from uuid import UUID

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep, bearer_scheme, get_user, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException as StarletteHTTPException

from include.quality import data_docs
from include.quality.data_docs import DataDocsError
from sluice.data_docs import base_path, folder

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
"""A page holds its styles in itself, loads nothing and runs nothing; only Airflow's UI may show it in a frame."""

NO_PAGE = (
    "There is no such page. The pages of the newest evaluations of a pipeline are kept and older ones are removed; one "
    "that could not be written says so in the log of its task. The results are in operations.quality_results, for as "
    "long as those are kept."
)
NO_INDEX = "No evaluation of this pipeline has a page: a quality check of it that runs writes one, if it has any."


async def logged_in(
    request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_scheme)]
) -> None:
    """Asks for a login before any permission: 401 says that there is none that is valid, 403 that it is not enough."""
    try:
        await get_user(request, None, bearer)
    except HTTPException as error:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, error.detail) from None


def named(dag_id: str) -> None:
    """Refuses what is no DAG's name before anything is looked for by it."""
    if not data_docs.DAG_ID.fullmatch(dag_id):
        raise HTTPException(status.HTTP_404_NOT_FOUND, NO_INDEX)


# Its dependencies do not guard what is mounted: mount nothing.
app = FastAPI(
    title="Sluice",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    redirect_slashes=False,
    dependencies=[Depends(logged_in)],
)


@app.get("/quality", dependencies=[Depends(requires_access_dag("GET"))])
def pipelines(user: GetUserDep) -> Response:
    """The pipelines that have pages and that the user may read."""
    may_read = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    return _page(data_docs.list_page(sorted(data_docs.pipelines(folder()) & may_read)))


@app.get("/quality/{dag_id}", dependencies=[Depends(named), Depends(requires_access_dag("GET"))])
def index(dag_id: str) -> Response:
    """The index of a pipeline."""
    return _file(dag_id, "index.html", NO_INDEX)


@app.get("/quality/{dag_id}/{evaluation}", dependencies=[Depends(named), Depends(requires_access_dag("GET"))])
def page(dag_id: str, evaluation: UUID) -> Response:
    """The page of an evaluation."""
    return _file(dag_id, f"{evaluation}.html", NO_PAGE)


@app.exception_handler(StarletteHTTPException)
async def refused(request: Request, error: StarletteHTTPException) -> Response:
    """A program is told in JSON, a person in words; who has no login is sent to get one."""
    if "authorization" in request.headers:
        return JSONResponse({"detail": error.detail}, error.status_code, headers=HEADERS)
    if error.status_code == status.HTTP_401_UNAUTHORIZED and request.method == "GET":
        here = quote(
            request.scope.get("root_path", "") + request.scope["path"].removeprefix(request.scope["root_path"])
        )
        login = f"{base_path()}/api/v2/auth/login?{urlencode({'next': here})}"
        return RedirectResponse(login, status.HTTP_307_TEMPORARY_REDIRECT, headers=HEADERS)
    said = {
        status.HTTP_401_UNAUTHORIZED: ("Not logged in", "Log in to Airflow first."),
        status.HTTP_403_FORBIDDEN: ("Not permitted", "You may not read the DAG that this page belongs to."),
        status.HTTP_404_NOT_FOUND: ("Not here", NO_PAGE if error.detail == "Not Found" else error.detail),
    }
    title, text = said.get(error.status_code, ("Not possible", error.detail))
    return _page(data_docs.notice_page(title, text), error.status_code)


@app.exception_handler(RequestValidationError)
async def unreadable(request: Request, _: RequestValidationError) -> Response:
    """What is not the id of an evaluation is no page."""
    return await refused(request, StarletteHTTPException(status.HTTP_404_NOT_FOUND))


@app.exception_handler(DataDocsError)
@app.exception_handler(OSError)
async def unavailable(request: Request, error: Exception) -> Response:
    """The folder cannot be read: what is wrong with it is for the log."""
    log.error("Data Docs cannot be read: %s", error)
    return await refused(
        request,
        StarletteHTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "The folder of Data Docs (the Variable data_docs_uri) cannot be read: the API server's log says why.",
        ),
    )


def _file(dag_id: str, name: str, missing: str) -> Response:
    try:
        return _page((folder() / dag_id / name).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise HTTPException(status.HTTP_404_NOT_FOUND, missing) from None


def _page(content: str | bytes, status_code: int = status.HTTP_200_OK) -> Response:
    return HTMLResponse(content, status_code, headers=HEADERS)
