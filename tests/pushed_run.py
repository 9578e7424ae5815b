"""The real run with a push: what was moved is known, how near the others came is made, falling as the real ones do."""

MAKE = """
    import sys, numpy, torch, zarr
    import store
    from crucible.channels.table import EXPERIMENT, derive, finisher
    source = zarr.open_group(sys.argv[1], mode="r")
    W, loss = source["W"], source["loss"][:]
    steps, tokens, hidden = W.shape
    update = {"variant": "adamw", "beta1": 0.9, "beta2": 0.998, "eps": 1e-08, "weight_decay": 0.0, "momentum": 0.0,
              "maximize": False, "fused": False, "exact": True}
    writer = store.TrajectoryWriter.create(
        sys.argv[2], channels=EXPERIMENT, derive=derive, finish=finisher(0.1), tokens=numpy.arange(tokens),
        hidden=hidden, statics={"dead_mask": numpy.arange(10_000) < tokens},
        attributes={"motion_threshold": 0.1, "beta1": 0.9, "optimizer_update": update},
    )
    rng = numpy.random.default_rng(0)
    near = rng.lognormal(0, 0.25, tokens)
    before = None
    for start in range(0, steps, 1251):
        for step, bits in enumerate(W[start:start + 1251], start):
            wide = torch.from_numpy(bits).view(torch.bfloat16).float()
            moved = (bits != before).any(axis=1) if step else numpy.zeros(tokens, bool)
            height = 40 / (1 + step / 40) * near * rng.lognormal(0, 0.05, tokens)
            push = numpy.where(moved, numpy.maximum(1, height), numpy.minimum(0.97, height)).astype(numpy.float32)
            rest = dict(loss=loss[step], learning_rate=1e-3, optimizer_step=step,
                        push=torch.from_numpy(push).to(torch.bfloat16).view(torch.uint16).numpy()) if step else dict(
                        loss=None, learning_rate=None, optimizer_step=None, push=None)
            writer.append(W=bits, centroid=wide.mean(dim=0).numpy(), **rest)
            before = bits
    writer.complete()
"""
