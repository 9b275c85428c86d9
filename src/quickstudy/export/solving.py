"""What ONNX or its runtime lacks: closed forms (elimination and Cholesky as loops over rows), and a few operations.

Nothing is pivoted: what the learners solve is positive definite or triangular. Imported only where a file is written.
What is decorated is no Python but the text of a graph.
"""
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from typing import Any, TypeVar, Union

import onnxscript
import torch
from onnxscript import opset18 as op

Real = TypeVar("Real", bound=Union[onnxscript.FLOAT, onnxscript.DOUBLE])  # noqa: UP007 (it reads no other form)
HOUSE = onnxscript.values.Opset("quickstudy", 1)


@onnxscript.script(HOUSE, default_opset=op)
def eliminated(a: Real, y: Real) -> Real:
    """The X of a X = y by Gauss-Jordan elimination: a (..., n, n), y (..., n, k)."""
    n = op.Shape(a, start=-1)
    count = op.Squeeze(n)
    place = op.Range(0, count, 1)
    whole = op.Concat(a, y, axis=-1)
    for k in range(count):
        at = op.Reshape(k, op.Constant(value_ints=[1]))
        row = op.Gather(whole, at, axis=-2)
        row = op.Div(row, op.Gather(row, at, axis=-1))
        own = op.Unsqueeze(op.CastLike(op.Equal(place, k), whole), op.Constant(value_ints=[-1]))
        column = op.Sub(op.Gather(whole, at, axis=-1), own)
        whole = op.Sub(whole, op.Mul(column, row))
    return op.Slice(whole, n, op.Shape(whole, start=-1), op.Constant(value_ints=[-1]))


@onnxscript.script(HOUSE, default_opset=op)
def factored(a: Real) -> Real:
    """The lower triangular L of a = L L', column by column: a (..., n, n)."""
    count = op.Squeeze(op.Shape(a, start=-1))
    place = op.Range(0, count, 1)
    rest = op.Identity(a)
    factor = op.Sub(a, a)
    for k in range(count):
        at = op.Reshape(k, op.Constant(value_ints=[1]))
        column = op.Gather(rest, at, axis=-1)
        below = op.Unsqueeze(op.CastLike(op.GreaterOrEqual(place, k), a), op.Constant(value_ints=[-1]))
        column = op.Div(op.Mul(column, below), op.Sqrt(op.Gather(column, at, axis=-2)))
        own = op.Unsqueeze(op.CastLike(op.Equal(place, k), a), op.Constant(value_ints=[0]))
        factor = op.Add(factor, op.Mul(column, own))
        turned = op.Transpose(column, perm=[0, 2, 1])
        rest = op.Sub(rest, op.MatMul(column, turned))
    return factor


def translations() -> dict[Any, Any]:
    """How torch's operations become these functions, as `torch.onnx.export` takes it."""

    def swapped(a: Any) -> Any:
        rank = len(a.shape)
        return op.Transpose(a, perm=[*range(rank - 2), rank - 1, rank - 2])

    def solve(a: Any, y: Any, left: bool = True) -> Any:
        assert left
        return eliminated(a, y)

    def inverse(a: Any) -> Any:
        n = op.Shape(a, start=-1)
        one = op.EyeLike(op.ConstantOfShape(op.Concat(n, n, axis=0)))
        return eliminated(a, op.Add(op.Sub(a, a), op.CastLike(one, a)))

    def cholesky(a: Any, upper: bool = False) -> Any:
        assert not upper
        size = op.Shape(a, start=-2)
        flat = op.Reshape(a, op.Concat(op.Constant(value_ints=[-1]), size, axis=0))
        return op.Reshape(factored(flat), op.Shape(a))

    def triangular(a: Any, y: Any, upper: bool = False, left: bool = True, unitriangular: bool = False) -> Any:
        assert left and not unitriangular
        return eliminated(a, y)

    def by_factor(y: Any, a: Any, upper: bool = False) -> Any:
        assert not upper
        return eliminated(swapped(a), eliminated(a, y))

    def places(known: Any, asked: Any, right: bool = False, **_: Any) -> Any:
        """How many of the sorted `known` (..., n) lie below each of `asked` (..., m), or up to it if `right`."""
        less = op.LessOrEqual if right else op.Less
        under = less(op.Unsqueeze(known, [-2]), op.Unsqueeze(asked, [-1]))
        return op.ReduceSum(op.Cast(under, to=7), [-1], keepdims=0)

    def sort(a: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        """TopK of all: of equal entries the first comes first, so that it is stable."""
        count = op.Gather(op.Shape(a), op.Constant(value_ints=[dim]))
        return op.TopK(a, count, axis=dim, largest=int(descending), sorted=1)

    def softplus(a: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
        """In operations that onnxruntime has for float64 as well."""
        assert beta == 1.0
        one = op.CastLike(op.Constant(value_float=1.0), a)
        return op.Add(op.Max(a, op.Sub(a, a)), op.Log(op.Add(one, op.Exp(op.Neg(op.Abs(a))))))

    aten = torch.ops.aten
    return {
        aten.linalg_solve.default: solve,
        aten.linalg_inv.default: inverse,
        aten.linalg_cholesky.default: cholesky,
        aten.linalg_solve_triangular.default: triangular,
        aten.cholesky_solve.default: by_factor,
        aten.searchsorted.Tensor: places,
        aten.softplus.default: softplus,
        aten.sort.stable: sort,
    }
