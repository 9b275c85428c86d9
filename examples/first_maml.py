"""MAML with a small network on vectors: learn five new classes from one example each."""

import torch

import quickstudy as qs


def make_source() -> qs.Source:
    """100 classes of vectors that differ in 3 directions out of 20; the other 17 only disturb."""
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(100).repeat_interleave(40)
    rows = 2 * torch.randn(len(label), 20, generator=rng)
    rows[:, :3] = 2 * torch.randn(100, 3, generator=rng)[label] + 0.15 * rows[:, :3]
    turn = torch.linalg.qr(torch.randn(20, 20, generator=rng)).Q
    return qs.tasks.Arrays.of(rows @ turn, label, way=5, shot=1, query=10)


def main(steps: int = 1500, tasks: int = 600) -> dict[str, float]:
    torch.manual_seed(0)
    source, objective = make_source(), qs.Classification(5)
    maml = qs.learners.MAML(qs.nets.MLP((20,), out=5, width=64), objective, inner_steps=3, inner_lr=0.1)
    qs.train(maml, source, steps=steps, meta_batch=16, lr=3e-3)

    accuracy = {}  # on classes never seen in training
    for name, learner in [("maml", maml), ("centroid", qs.learners.Centroid(objective))]:
        score = qs.evaluate(learner, source, "test", tasks=tasks)
        print(f"{name:9} {score}")  # mean and 95 % interval over tasks
        accuracy[name] = score.mean()

    new = source.sample("test", 1, source.rng("a new task"))
    state = maml.adapt(new.support)  # five rows, one a class: all that is known of the task
    right = maml.predict(state, new.query.x).argmax(-1) == new.query.y
    print(f"a new task: {int(right.sum())} of {right.numel()} rows right")
    return accuracy


if __name__ == "__main__":
    main()
