"""The types of requests and answers, made for the learner that is served: the OpenAPI document says what it takes."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from quickstudy.serve.desk import Desk
from quickstudy.serve.limits import Limits
from quickstudy.serve.rows import FORMATS, Intake

NAME = 200
"""Letters of the name of a class."""
NEAREST = 50
"""The most examples named for a row."""
WHOLE = 2**53
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Error(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="one sentence: what was wrong, and what to do")


class Health(BaseModel):
    """The server runs, and its tasks can be reached."""

    status: str


class TaskCard(BaseModel):
    """What is known of a task."""

    id: str
    version: int = Field(description="1 when made, one more whenever it is extended")
    kind: str = Field(description="classification or regression")
    classes: list[str] = Field(description="in the order of the columns of probabilities; empty for regression")
    counts: list[int] = Field(description="examples of each class")
    rows: int = Field(description="examples in all")
    state_bytes: int = Field(description="what was learnt takes so many bytes")
    made: float = Field(description="seconds since 1970")
    changed: float = Field(description="seconds since 1970")
    checkpoint: str = Field(description="the digest of the learner")


class LearnerCard(BaseModel):
    """What is served."""

    quickstudy: str
    learner: str = Field(description="the method")
    kind: str = Field(description="classification or regression")
    rows: str = Field(description="what a row is: texts, images, arrays, cells or frame")
    x_shape: list[int] = Field(description="of a row of numbers; empty where rows are something else")
    columns: list[str] = Field(description="the columns that a row of a table must have")
    y_size: int = Field(description="numbers to predict in a row; 0 for classification")
    invertible: bool = Field(description="whether images may be said to show dark ink on white")
    inverted: bool = Field(description="whether it was trained on images that were inverted")
    describes: bool = Field(description="zero-shot: the rows of a task describe a class each")
    incremental: bool = Field(description="whether more examples are folded in, not learnt again with all others")
    calibrated: bool = Field(description="whether coverage may be asked for")
    checkpoint: str = Field(description="its digest")
    limits: dict[str, float]


class Said(BaseModel):
    """What a task says of rows, an entry for each row."""

    version: int = Field(description="of the task that was asked")


class Classes(Said):
    classes: list[str] = Field(description="the columns of probabilities")
    labels: list[str] = Field(description="the most probable class")
    probabilities: list[list[float]] = Field(description="of each class; calibrated where coverage was asked for")
    sets: list[list[str]] | None = Field(None, description="the classes that hold the truth as often as coverage says")
    note: str | None = Field(None, description="where the task is unlike those calibrated on")
    nearest: list[list[int]] | None = Field(None, description="numbers of the examples most like the row, from 0")


class Values(Said):
    values: list[list[float]]
    deviations: list[list[float]] | None = Field(None, description="standard deviations, where the learner gives them")
    low: list[list[float]] | None = Field(None, description="of the interval that coverage asks for")
    high: list[list[float]] | None = None
    note: str | None = Field(None, description="where the task is unlike those calibrated on")
    nearest: list[list[int]] | None = Field(None, description="numbers of the examples most like the row, from 0")


class Shapes(NamedTuple):
    """The requests that make, extend and ask a task, and the answer."""

    create: type[BaseModel]
    extend: type[BaseModel]
    ask: type[BaseModel]
    said: type[BaseModel]


def shapes(desk: Desk) -> Shapes:
    """The types for the learner of a desk."""
    limits, size = desk.limits, desk.trained.learner.objective.size
    shown: dict[str, Any] = {"rows": (_rows(desk.shown, limits), Field(description="the examples"))}
    if desk.classifies:
        name: Any = Annotated[str, Field(min_length=1, max_length=NAME)]
        whole: Any = Annotated[int, Field(ge=-WHOLE, le=WHOLE)]
        several: Any = Annotated[list[name | whole], Field(min_length=1, max_length=limits.rows)]
        shown["labels"] = (several, Field(description="the class of each example; two classes or more"))
    else:
        size = getattr(desk.trained.learner.objective, "y_size", size)
        several = Annotated[list[_array((size,))], Field(min_length=1, max_length=limits.rows)]
        shown["values"] = (several, Field(description=f"the {size} number(s) of each example"))
    asked: dict[str, Any] = {"rows": (_rows(desk.asked, limits), Field(description="what is asked"))}
    for intake, fields in ((desk.shown, shown), (desk.asked, asked)):
        if intake.invertible:
            fields["invert"] = (bool, Field(False, description="the images show dark ink on white"))
    nearest = Annotated[int, Field(ge=0, le=NEAREST)]
    asked["nearest"] = (nearest, Field(0, description="name so many examples most like each row"))
    about = "add what holds the truth so often, if the learner is calibrated"
    level: Any = Annotated[float, Field(ge=0.5, le=0.99)]
    asked["coverage"] = (level | None, Field(None, description=about))
    about = "extend only if the task is at this version: an extension that is sent again is then not made twice"
    number: Any = Annotated[int, Field(ge=1, le=WHOLE)]
    more = {**shown, "version": (number | None, Field(None, description=about))}
    return Shapes(
        create_model("NewTask", __config__=STRICT, **shown),
        create_model("MoreExamples", __config__=STRICT, **more),
        create_model("Question", __config__=STRICT, **asked),
        Classes if desk.classifies else Values,
    )


def _rows(intake: Intake, limits: Limits) -> Any:
    return Annotated[list[_row(intake, limits)], Field(min_length=1, max_length=limits.rows)]


def _row(intake: Intake, limits: Limits) -> Any:
    word: Any = Annotated[str, Field(max_length=limits.letters)]
    cell: Any = float | int | bool | word | None
    if intake.kind == "texts":
        return Annotated[str, Field(min_length=1, max_length=limits.letters, description="a text")]
    if intake.kind == "cells":
        width = int(getattr(intake.reader, "width", 1))
        about = "the numbers of a row of a table, null where one is missing; as many in every row of a task"
        return Annotated[list[float | None], Field(min_length=1, max_length=width, description=about)]
    if intake.kind == "frame":
        about = "a row of a table by the names of its columns, null where a cell is missing"
        kinds = {"type": ["number", "string", "boolean", "null"]}
        said = {"type": "object", "properties": dict.fromkeys(intake.columns, kinds), "required": intake.columns}
        said |= {"additionalProperties": kinds, "description": about}
        return Annotated[dict[str, cell], WithJsonSchema(said)]
    if intake.kind == "arrays":
        one = _array(intake.x_shape)
        return float | one if intake.x_shape == (1,) else one
    about = f"an image file ({', '.join(FORMATS)}) in base64"
    image: Any = Annotated[str, Field(min_length=1, description=about, json_schema_extra={"contentEncoding": "base64"})]
    if not intake.invertible:
        return image
    about = f"grey levels from 0 to 1, of shape {list(intake.x_shape)}"
    array: Any = Annotated[_array(intake.x_shape), Field(description=about)]
    return image | array


def _array(shape: tuple[int, ...]) -> Any:
    """Nested lists of numbers of that shape."""
    if not shape:
        return float
    return Annotated[list[_array(shape[1:])], Field(min_length=shape[0], max_length=shape[0])]
