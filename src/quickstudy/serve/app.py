"""What is answered at which address."""

# annotations are looked at here: FastAPI reads the types of requests from them, and they are made for the learner
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from quickstudy.core.errors import UserError
from quickstudy.evaluate import name_of
from quickstudy.serve.desk import Desk
from quickstudy.serve.limits import Refused
from quickstudy.serve.metrics import Metrics
from quickstudy.serve.page import page
from quickstudy.serve.shapes import Error, Health, LearnerCard, TaskCard, shapes
from quickstudy.version import VERSION

Id = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{22}$", description="the id of a task, as POST /tasks gave it")]
ABOUT = {
    400: "the request cannot be read",
    401: "the token is missing or wrong",
    404: "there is no such task",
    408: "the request took too long to arrive",
    409: "the task is at another version, or of another learner",
    413: "the body is too large",
    415: "the body is not said to be JSON",
    422: "the request was read, and does not fit",
    429: "too many requests a second",
    503: "too much is asked of the server at the moment",
}


class _Strict(Request):
    """A request whose JSON holds no NaN and no infinity, which are no JSON."""

    async def json(self) -> Any:
        return json.loads(await self.body(), parse_constant=_no_number)


def _no_number(word: str) -> Any:
    raise Refused(400, f"the body holds {word}, which is no JSON: give finite numbers, or null for a missing cell.")


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            try:
                return await handle(_Strict(request.scope, request.receive))
            except HTTPException as error:
                if isinstance(error.__cause__, Refused):  # FastAPI's word for whatever reading a body raises
                    raise error.__cause__ from None
                raise

        return strictly


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These refusals, and those that any request may meet, for the OpenAPI document."""
    every = sorted({*statuses, 400, 401, 408, 429, 503})
    return {status: {"model": Error, "description": ABOUT[status]} for status in every}


def application(desk: Desk, metrics: Metrics, token: bool = False) -> FastAPI:
    """The server's application, without the guard before it; token: whether that asks for one."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        desk.gatherer.start()
        yield
        await desk.close()

    app = FastAPI(title="quickstudy", version=VERSION, lifespan=life, docs_url=None, redoc_url=None)
    app.router.route_class = _Route
    app.state.desk = desk
    _handlers(app)
    _pages(app)
    _about(app, desk, metrics)
    _tasks(app, desk)
    app.openapi = lambda: _document(app, token)  # type: ignore[method-assign]
    return app


def _tasks(app: FastAPI, desk: Desk) -> None:
    known = shapes(desk)
    writing = errors(413, 415, 422)

    def given(body: Any) -> tuple[list[Any], list[Any], bool]:
        y = body.labels if desk.classifies else body.values
        return body.rows, y, getattr(body, "invert", False)

    @app.post("/tasks", status_code=201, response_model=TaskCard, responses=writing, operation_id="create")
    async def create(body: known.create) -> Response:  # type: ignore[valid-type]
        """Adapt to a new task, from labelled examples."""
        entry = await desk.create(given(body))
        return JSONResponse(entry.card(), 201, headers={"Location": f"/tasks/{entry.id}"})

    @app.get("/tasks/{id}", response_model=TaskCard, responses=errors(404, 409, 422), operation_id="describe")
    async def describe(id: Id) -> Response:
        """What is known of a task."""
        return JSONResponse((await desk.entry(id)).card())

    responses = errors(404, 409, 413, 415, 422)

    @app.patch("/tasks/{id}", response_model=TaskCard, responses=responses, operation_id="extend")
    async def extend(id: Id, body: known.extend) -> Response:  # type: ignore[valid-type]
        """Give a task more examples."""
        version: Any = getattr(body, "version", None)
        return JSONResponse((await desk.extend(id, given(body), version)).card())

    @app.delete("/tasks/{id}", status_code=204, responses=errors(404, 422), operation_id="forget")
    async def forget(id: Id) -> Response:
        """Delete a task, and its examples."""
        await desk.forget(id)
        return Response(status_code=204)

    @app.post("/tasks/{id}/predict", response_model=known.said, responses=responses, operation_id="predict")
    async def predict(id: Id, body: known.ask) -> Response:  # type: ignore[valid-type]
        """Ask a task for labels and probabilities, or for values."""
        asked: Any = body
        answer = await desk.predict(id, asked.rows, getattr(asked, "invert", False), asked.coverage, asked.nearest)
        return JSONResponse(answer.card())


def _about(app: FastAPI, desk: Desk, metrics: Metrics) -> None:
    @app.get("/card", response_model=LearnerCard, responses=errors(), operation_id="learner")
    async def learner() -> Response:
        """What is served, and what it takes."""
        trained, asked = desk.trained, desk.asked
        said = LearnerCard(
            quickstudy=VERSION,
            learner=name_of(trained.learner, "learner"),
            kind=trained.learner.objective.kind,
            rows=asked.kind,
            x_shape=list(asked.x_shape) if asked.kind in ("images", "arrays") else [],
            columns=asked.columns,
            y_size=0 if desk.classifies else getattr(trained.learner.objective, "y_size", 1),
            invertible=asked.invertible,
            inverted=bool((trained.card.get("tasks") or {}).get("invert")),
            describes=(trained.card.get("spec") or {}).get("kind") == "zero-shot",
            incremental=bool(trained.learner.incremental),
            calibrated=desk.trust is not None,
            checkpoint=desk.digest,
            limits={name: float(value) for name, value in vars(desk.limits).items()},
        )
        return JSONResponse(said.model_dump())

    @app.get("/healthz", response_model=Health, responses=errors(), operation_id="health")
    async def health() -> Response:
        """Whether the server works, and can reach its tasks."""
        await desk.count()
        return JSONResponse({"status": "ok"})

    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "counts"}}

    @app.get("/metrics", response_class=Response, responses={**errors(), **text}, operation_id="metrics")
    async def counts() -> Response:
        """What was counted, for Prometheus."""
        return Response(metrics.text(await desk.count()), media_type="text/plain; version=0.0.4; charset=utf-8")


def _pages(app: FastAPI) -> None:
    for path, name in (("/", "page"), ("/docs", "docs")):
        html, policy = page(name)

        async def shown(_: Request, html: str = html, policy: str = policy) -> Response:
            return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})

        app.add_route(path, shown, include_in_schema=False)

    async def nothing(_: Request) -> Response:
        return Response(status_code=204)

    app.add_route("/favicon.ico", nothing, include_in_schema=False)


def _handlers(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _error(error.status, error.sentence, {"Retry-After": "1"} if error.status == 503 else {})

    @app.exception_handler(UserError)
    async def user(_: Request, error: UserError) -> Response:
        return _error(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _error(*_sentence(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        said = {
            404: "there is nothing at this address: see /docs.",
            405: f"{request.method[:20]} is not for this address: see /docs.",
            400: "the body is no JSON: see /docs for what is expected.",
        }
        return _error(error.status_code, said.get(error.status_code, str(error.detail)), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return _error(500, "the server failed at this request: look into its log.")


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers=headers)


def _sentence(error: RequestValidationError) -> tuple[int, str]:
    """The status and the sentence for a request that does not fit the document."""
    first = error.errors()[0]
    where, said = [str(part) for part in first["loc"]], str(first["msg"]).rstrip(".")
    if first["type"] == "json_invalid":
        return 400, f"the body is no JSON (at letter {first['loc'][-1]}): see /docs for what is expected."
    if where[0] == "path":
        return 404, "there is no such task: make one with POST /tasks."
    name = ".".join(where[1:])[:200] or "the body"
    return 422, f"{name} does not fit: {said[:1].lower()}{said[1:300]}; see /docs."


def _document(app: FastAPI, token: bool) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with our errors in the place of its own, and the token."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="quickstudy", version=VERSION, routes=app.routes,
            description="A learner that adapts to a new task from a handful of examples.",
        )  # fmt: skip
        if token:
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, verbs in made["paths"].items():
                for verb in verbs.values():
                    verb["security"] = [] if path == "/healthz" else [{"token": []}]
        for gone in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(gone, None)
        for verb in (verb for verbs in made["paths"].values() for verb in verbs.values()):
            for said in verb["responses"].values():
                said["description"] = said["description"].replace("Successful Response", "done")
        app.openapi_schema = made
    return app.openapi_schema
