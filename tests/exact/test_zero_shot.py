"""What each zero-shot method must equal: its paper's formula in numpy, a numerical minimiser, another method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import quickstudy as qs
from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Task, examples
from quickstudy.inner.bilinear import bilinear_loss, bilinear_ridge
from quickstudy.learners import DAP, ESZSL, DeViSE, NearestDescription, ProtoNet, SemanticProtoNet
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY, X, WORDS = 3, (5,), (4,)
CLASSES = Classification(WAY)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def net() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(X, width=6).double()


def built(cls: type[MetaLearner], *arguments: object, **options: object) -> MetaLearner:
    """A learner in float64 with weights that do not depend on what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(*arguments, **options).double()


def tasks() -> Task:
    """Tasks in which some rows of the query count less than others, and in task 1 a class is not described."""
    made = synthetic_tasks(CLASSES, X, ragged=True, description_shape=WORDS)
    weight = made.query.weight * (0.2 + torch.rand(made.query.weight.shape, generator=seeded(), dtype=torch.float64))
    return made._replace(query=made.query._replace(weight=weight))


def predictions(learner: MetaLearner, given: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(given.support), given.query.x, given.query.weight)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# --- SemanticProtoNet ---


def identity(size: int) -> MLP:
    made = MLP((size,), out=size, depth=0).double()
    with torch.no_grad():
        made.layers[0].weight.copy_(torch.eye(size))
        made.layers[0].bias.zero_()
    return made


def test_with_an_identity_map_of_descriptions_it_is_protonet() -> None:
    given = synthetic_tasks(CLASSES, X, ragged=True, description_shape=X)
    learner = SemanticProtoNet(identity(5), CLASSES, X, unit=False).double()
    learner.describe = identity(5)
    close(predictions(learner, given), predictions(ProtoNet(identity(5), CLASSES), given))
    # and with any features, the distances to the vectors that were given
    learner = SemanticProtoNet(net(), CLASSES, (6,), unit=False).double()
    learner.describe = identity(6)
    vectors, rows = normal(2, WAY, 6), normal(2, 7, 5, seed=1)
    order = torch.tensor([[2, 0, 1], [1, 2, 0]])
    state = learner.adapt(examples(vectors.gather(1, order.unsqueeze(-1).expand(-1, -1, 6)), order))
    close(learner.predict(state, rows), -torch.cdist(net()(rows), vectors).square())


def test_prototypes_have_unit_length() -> None:
    learner, given = built(SemanticProtoNet, net(), CLASSES, WORDS, depth=1), tasks()
    assert isinstance(learner, SemanticProtoNet)
    centres = learner.describe(given.support.x)
    centres = centres / centres.norm(dim=-1, keepdim=True)
    expected = -torch.cdist(learner.net(given.query.x), centres).square()
    close(predictions(learner, given)[::2], expected[::2])  # all classes are described in tasks 0 and 2


# --- ESZSL ---


def paper(v: np.ndarray, x: np.ndarray, y: np.ndarray, s: np.ndarray, gamma: float, penalty: float) -> float:
    """The objective of the paper, with a column of X for each row and a column of S for each class."""
    return float(
        np.sum((x.T @ v @ s - y) ** 2)
        + gamma * np.sum((v @ s) ** 2)
        + penalty * np.sum((x.T @ v) ** 2)
        + gamma * penalty * np.sum(v**2)
    )


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (5, 12), Y (12, 3) of 1 and -1, S (4, 3)."""
    label = np.arange(12) % WAY
    y = np.where(label[:, None] == np.arange(WAY), 1.0, -1.0)
    return normal(5, 12).numpy(), y, normal(4, WAY, seed=1).numpy()


def batch(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)).unsqueeze(0) for a in arrays]


def test_the_closed_form_is_the_minimiser_of_the_paper() -> None:
    (x, y, s), gamma, penalty = problem(), 0.3, 0.2
    m, z = 12, WAY
    ones = [torch.ones(1, count, dtype=torch.float64) for count in (m, z)]
    ours = bilinear_ridge(*batch(x.T, y, s.T), *ones, gamma, penalty)[0].numpy()
    left = np.linalg.inv(x @ x.T + m * gamma * np.eye(5))
    right = np.linalg.inv(s @ s.T + z * penalty * np.eye(4))
    np.testing.assert_allclose(ours, left @ x @ y @ s.T @ right, rtol=1e-9)

    def objective(v: np.ndarray) -> float:
        return paper(v.reshape(5, 4), x, y, s, m * gamma, z * penalty)

    found = minimize(objective, np.zeros(20), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(ours, found.x.reshape(5, 4), atol=1e-6)
    v = normal(5, 4, seed=2)
    value = bilinear_loss(v.unsqueeze(0), *batch(x.T, y, s.T), *ones, gamma, penalty)
    assert float(value) == pytest.approx(objective(v.numpy().ravel()) / (m * z), rel=1e-12)


def test_weights_count_rows_and_unseen_classes_do_not() -> None:
    x, y, s = problem()
    weight = torch.ones(1, 12, dtype=torch.float64)
    weight[0, 0], weight[0, 1] = 2.0, 0.0
    seen = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    rows = [0, 0, *range(2, 12)]
    same = torch.ones(1, 12, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    weighted = bilinear_ridge(*batch(x.T, y, s.T), weight, seen, 0.3, 0.2)
    close(weighted, bilinear_ridge(*batch(x.T[rows], y[rows, :2], s.T[:2]), *same, 0.3, 0.2))
    v = normal(1, 5, 4, seed=2)
    value = bilinear_loss(v, *batch(x.T, y, s.T), weight, seen, 0.3, 0.2)
    close(value, bilinear_loss(v, *batch(x.T[rows], y[rows, :2], s.T[:2]), *same, 0.3, 0.2))


def test_training_descends_to_what_solve_finds() -> None:
    x, _, s = problem()
    label = torch.arange(12).unsqueeze(0) % WAY
    rows = examples(torch.from_numpy(x.T).unsqueeze(0), label)
    support = examples(torch.from_numpy(s.T).unsqueeze(0), torch.arange(WAY).unsqueeze(0))
    trained, solved = (built(ESZSL, CLASSES, X, WORDS, 0.3, 0.2, others=-1.0) for _ in range(2))
    assert isinstance(solved, ESZSL) and isinstance(trained, ESZSL)
    solved.solve(rows, torch.from_numpy(s.T))
    descent = torch.optim.LBFGS(trained.parameters(), max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure() -> Tensor:
        descent.zero_grad()
        loss = trained(Task(support, rows))
        loss.backward()
        return loss

    descent.step(closure)
    torch.testing.assert_close(trained.weight, solved.weight, rtol=1e-6, atol=1e-8)
    y = np.where(np.arange(12)[:, None] % WAY == np.arange(WAY), 1.0, -1.0)
    left, right = np.linalg.inv(x @ x.T + 12 * 0.3 * np.eye(5)), np.linalg.inv(s @ s.T + WAY * 0.2 * np.eye(4))
    np.testing.assert_allclose(solved.weight.detach().numpy(), left @ x @ y @ s.T @ right, rtol=1e-9)
    close(predictions(solved, Task(support, rows)), rows.x @ solved.weight.detach() @ support.x.mT)  # type: ignore


# --- DeViSE ---


def test_the_hinge_rank_loss_by_hand() -> None:
    learner, given = built(DeViSE, net(), CLASSES, WORDS, margin=0.7), tasks()
    assert isinstance(learner, DeViSE)
    seen = CLASSES.seen(given.support)
    for t in range(3):
        total, mass = 0.0, 0.0
        units = [row / row.norm() for row in given.support.x[t]]  # type: ignore[index]
        for x, y, w in zip(given.query.x[t], given.query.y[t], given.query.weight[t], strict=True):  # type: ignore
            near = (learner.map.weight @ learner.net(x.view(1, 1, 5))[0, 0]).detach()
            wrong = [k for k in range(WAY) if k != y and seen[t, k]]
            hinge = sum(max(0.0, 0.7 - float(units[y] @ near) + float(units[k] @ near)) for k in wrong)
            total, mass = total + float(w) * hinge, mass + float(w)
        assert learner.meta_loss(given)[t].item() == pytest.approx(total / mass, rel=1e-9)
    units = given.support.x / given.support.x.norm(dim=-1, keepdim=True)  # type: ignore[operator]
    expected = learner.map(learner.net(given.query.x)) @ units.mT / 0.7
    close(predictions(learner, given)[0], expected[0].detach())


# --- DAP ---


def test_the_posterior_is_the_product_over_attributes() -> None:
    learner = built(DAP, net(), CLASSES, WORDS)
    assert isinstance(learner, DAP)
    with torch.no_grad():
        learner.share.copy_(normal(4))
    given = tasks()
    has = (normal(3, WAY, 4, seed=3) > 0).double()
    given = given._replace(support=given.support._replace(x=has))
    logits = predictions(learner, given).numpy()
    p = torch.sigmoid(learner.attributes(given.query.x)).detach().numpy()
    prior = torch.sigmoid(learner.share).detach().numpy()
    for t in (0, 2):
        for i in range(logits.shape[1]):
            score = []
            for k in range(WAY):
                product = 1.0
                for m in range(4):
                    one = bool(has[t, k, m])
                    product *= (p[t, i, m] if one else 1 - p[t, i, m]) / (prior[m] if one else 1 - prior[m])
                score.append(product)
            np.testing.assert_allclose(np.exp(logits[t, i]), score, rtol=1e-9)
            shown = torch.from_numpy(logits[t, i]).softmax(-1).numpy()
            np.testing.assert_allclose(shown, np.array(score) / sum(score), rtol=1e-9)


def test_shares_and_attributes_are_fitted_by_likelihood() -> None:
    learner, given = built(DAP, net(), CLASSES, WORDS), tasks()
    assert isinstance(learner, DAP)
    s = given.support.x.clamp(0, 1)  # type: ignore[union-attr]
    full = Task(*(Examples(*(t[:1] for t in part)) for part in given))  # type: ignore[misc]
    with torch.no_grad():
        learner.share.copy_(torch.logit(s[0].mean(0)))
    (gradient,) = torch.autograd.grad(learner(full), [learner.share])
    close(gradient, torch.zeros(4, dtype=torch.float64))
    p, mean = torch.sigmoid(learner.attributes(full.query.x))[0].detach(), s[0].mean(0)
    wanted = s[0][full.query.y[0]]
    rows = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean(-1)
    weight = full.query.weight[0]
    expected = (rows * weight).sum() / weight.sum() - (mean * mean.log() + (1 - mean) * (1 - mean).log()).mean()
    close(learner.meta_loss(full).detach(), expected.view(1))


# --- NearestDescription ---


def test_angles_to_the_mean_description_by_hand() -> None:
    vectors, rows = normal(2, 5, 2, 2), normal(2, 7, 2, 2, seed=1)
    order = torch.tensor([[2, 0, 1, 1, 2], [1, 2, 1, 1, 2]])  # in task 1 class 0 is not described
    weight = torch.tensor([[1.0, 1.0, 1.0, 2.0, 0.0], [1.0] * 5], dtype=torch.float64)
    learner = NearestDescription(CLASSES, (2, 2), (2, 2), scale=4.0)
    found = learner.predict(learner.adapt(examples(vectors, order, weight)), rows)
    for t in range(2):
        for k in range(WAY):
            own = (order[t] == k) * weight[t]
            if not own.sum():
                assert (found[t, :, k] < found[t].amin(-1) + 1e-9).all() and found[t, :, k].max() <= -1e4
                continue
            v = np.einsum("n,nij->ij", own, vectors[t]).ravel()
            angle = [x.ravel() @ v / np.linalg.norm(x) / np.linalg.norm(v) for x in rows[t].numpy()]
            close(found[t, :, k], 4.0 * torch.tensor(angle, dtype=torch.float64))


def test_rows_and_descriptions_have_to_be_alike() -> None:
    unlike, alike = (qs.Spec("zero-shot", (4,), way=3, description_shape=(size,)) for size in (5, 4))
    assert [NearestDescription.fits(spec) for spec in (unlike, alike)] == [False, True]
    assert not NearestDescription.fits(qs.Spec("classification", (4,), way=3))
    with pytest.raises(UserError, match=r"^nearest_description .* shape \(4,\), descriptions of \(5,\): encode"):
        qs.make("nearest_description", unlike)
    with pytest.raises(UserError, match=r"^scale is 0: "):
        qs.make("nearest_description", alike, scale=0)


# --- all of them ---


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"^gamma is -1: .* positive"):
        ESZSL(CLASSES, X, WORDS, gamma=-1)
    with pytest.raises(UserError, match=r"^penalty is inf: "):
        ESZSL(CLASSES, X, WORDS, penalty=math.inf)
    with pytest.raises(UserError, match=r"^margin is 0: "):
        DeViSE(net(), CLASSES, WORDS, margin=0)
    spec = qs.Spec("zero-shot", (4,), way=3, description_shape=(2,))
    with pytest.raises(UserError, match=r"protonet takes classification tasks, and these are zero-shot: use semantic"):
        qs.make("protonet", spec)


@pytest.mark.parametrize("name", ["semantic_protonet", "devise", "eszsl"])
def test_before_training_the_nearest_description_is_the_answer(name: str) -> None:
    """Where both are encoded alike: rows of any length, descriptions of unit length."""
    spec = qs.Spec("zero-shot", (6,), way=4, description_shape=(6,))
    learner = qs.make(name, spec, None if name == "eszsl" else "projection")
    plain = qs.make("nearest_description", spec)
    words = torch.nn.functional.normalize(torch.randn(2, 4, 6, generator=seeded()), dim=-1)
    support = qs.examples(words, torch.arange(4).expand(2, 4))
    x = torch.randn(2, 50, 6, generator=seeded(1))
    a, b = (one.predict(one.adapt(support), x).argmax(-1) for one in (learner, plain))
    assert torch.equal(a, b)
