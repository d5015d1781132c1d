"""Bugs of the Python layer that no result can show, and why."""

# Of a file: a line, the one part of it that changes, what it becomes, and why that is the same.
BY_FILE: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "ce_ext/binary_derivatives.py": (
        (
            "x = input.to(self._opmath).where(self._valid, 0.5)",
            "0.5",
            "1.5",
            "any number serves where elements are ignored",
        ),
        ("return target.to(self._opmath).where(valid, 0), valid", "0", "1", "likewise"),
        ("return dense.where(is_known, torch.nan).where(valid, 0), valid", "0", "1", "likewise"),
        (
            "log_p = p.where(p != 0, 1).log().where(p != 0, at_least).clamp_min(at_least)",
            "1",
            "2",
            "any number serves whose logarithm nobody takes",
        ),
        (
            "log_rest = torch.log1p(-p.where(p != 1, 0)).where(p != 1, at_least).clamp_min(at_least)",
            "1, 0",
            "1, 1",
            "likewise",
        ),
        (
            "coarse_edge = math.floor(edge * 4096) / 4096  # in few enough digits for any dtype to have them all",
            "* 4096",
            "* 4097",
            "any number near the edge serves that has few digits",
        ),
        (
            "prediction = LogitPrediction(x.where(is_above, edge + 1))",
            "+",
            "-",
            "any number serves where the loss is 0",
        ),
        ("prediction = LogitPrediction(x.where(is_above, edge + 1))", "1", "2", "likewise"),
        ("above = above.where(is_above, 1)", "1", "2", "likewise"),
        (
            "u = prediction.probability() * (1 - margin) * torch.where(odds > 0.5, -torch.expm1(-above), 1 - odds)",
            ">",
            ">=",
            "neither way cancels at 0.5",
        ),
        ("is_small = u < 0.5", "<", "<=", "likewise"),
        (
            "miss = torch.where(is_small, -torch.log1p(-u.where(is_small, 0)), -torch.log(rest.where(~is_small, 1)))",
            "is_small, 0",
            "is_small, 1",
            "any number serves whose logarithm nobody takes",
        ),
        (
            "miss = torch.where(is_small, -torch.log1p(-u.where(is_small, 0)), -torch.log(rest.where(~is_small, 1)))",
            "is_small, 1",
            "is_small, 2",
            "likewise",
        ),
        (
            "if margin >= torch.finfo(x.dtype).smallest_normal:",
            ">=",
            ">",
            "a margin this small is as good as none",
        ),
    ),
    "ce_ext/binary_loss.py": (
        (
            "class_alpha, alpha = (alpha, -1.0) if isinstance(alpha, Tensor) else (None, alpha)",
            "-1.0",
            "1.0",
            "the alphas of classes are in the place of the one",
        ),
    ),
    "ce_ext/checks.py": (
        (
            "if type(value) is int or isinstance(value, torch.SymInt):",
            " or ",
            " and ",
            "operator.index gives integers back as they are, and the ops make them of symbols anyway",
        ),
    ),
    "ce_ext/derivatives.py": (
        (
            "hard = (1 - options.label_smoothing) * of_target(w) + unknown",
            "+",
            "-",
            "what is unknown is NaN, and all else 0",
        ),
        (
            "v = torch.zeros_like(input, dtype=opmath) if v is None else v.to(opmath)",
            ", dtype=opmath",
            "",
            "zeros are the same in any dtype",
        ),
        ("x = input.to(opmath).where(self._valid, 0) + unknown", "+", "-", "what is unknown is NaN, and all else 0"),
        (
            "x = input.to(opmath).where(self._valid, 0) + unknown",
            "0",
            "1",
            "any number serves where rows are ignored",
        ),
        ("if options.label_smoothing > 0:", ">", ">=", "0 of the smoothing is added"),
        (
            "q = q + options.label_smoothing / max(classes, 1) * w",
            "1",
            "2",
            "the loss of one class has no derivative",
        ),
        ("if options.gamma > 0:", ">", ">=", "its factor is 1 then"),
        (
            "others = LogitsPrediction(of_others.where(~is_alone, 0), dim)",
            "0",
            "1",
            "any number serves where there are no others",
        ),
        ("near, beyond = split_far(margin, margin > 0)", ">", ">=", "0 is not far"),
        ("near, beyond = split_far(margin, margin > 0)", "0", "1", "nor is 1"),
        (
            "p_base = options.gamma * product(p_target, row.total(product(q, row.nll))).where(f != 0, 0)",
            "!= 0, 0",
            "!= 0, 1",
            "f is a factor of all that it is in",
        ),
        ("if options.z_loss > 0:", ">", ">=", "0 of it is added"),
        (
            "slope = options.logit_scale * torch.where(prediction.odds > 0.5, 1 - t * t, 4 * prediction.variance())",
            ">",
            ">=",
            "neither way cancels at 0.5",
        ),
    ),
    "ce_ext/predictions.py": (
        ("self.is_pos = x > 0", ">", ">=", "both sides meet in 0"),
        (
            "gap = torch.where(self.odds > 0.5, -torch.expm1(-self.distance), 1 - self.odds)",
            ">",
            ">=",
            "neither way cancels at 0.5",
        ),
        (
            "bound = 700.0 if x.dtype == torch.float64 else 80.0",
            "700",
            "701",
            "any bound serves beyond which 1 - p is proportional to e^-x",
        ),
        ("bound = 700.0 if x.dtype == torch.float64 else 80.0", "80", "81", "likewise"),
        ("is_far = (x.abs() > bound) & may_split", ">", ">=", "likewise"),
        (
            "return x.where(~is_far, bound * x.sign()), (x.abs() - bound).where(is_far, 0)",
            "*",
            "/",
            "a sign is its own inverse",
        ),
        ("if exponent == 0 or exponent >= 1:", ">=", ">", "both ways are right, and one is cheaper"),
        ("if exponent == 0 or exponent >= 1:", "1", "2", "likewise"),
        (
            "self.log_sum = torch.log1p(below) + (self.max - self.max)  # an infinite maximum makes the row NaN",
            "+",
            "-",
            "what is added is 0 or NaN",
        ),
        (
            "rest = torch.where(p > 0.5, -torch.expm1(-n), 1 - p)  # so that its derivative, p, does not cancel",
            ">",
            ">=",
            "neither way cancels at 0.5",
        ),
        (
            "rest = rest.clamp(min=1024 * torch.finfo(n.dtype).smallest_normal)",
            "1024",
            " 1025",
            "any bound serves that is far below what is rounded",
        ),
    ),
    "ce_ext/scripted.py": (
        (
            "of_all = -1.0 if isinstance(alpha, Tensor) else alpha",
            "-1.0",
            "1.0",
            "the alphas of classes are in the place of the one",
        ),
    ),
    "ce_ext/sharding.py": (
        (
            "return dim - (dim > class_dim)  # one for each row",
            ">",
            ">=",
            "losses of rows are not sharded along their classes",
        ),
        (
            "if choices.keys() >= set(input.placements):  # replicated, too, for rows that are fewer than processes",
            ">=",
            ">",
            "of all that there are, all remain",
        ),
    ),
    "ce_ext/soft_derivatives.py": (
        (
            "u = confidence * target.to(opmath) + options.label_smoothing / max(input.shape[dim], 1) * w",
            "1",
            "2",
            "the loss of one class has no derivative",
        ),
        ("if options.gamma > 0:", ">", ">=", "its factor is 1 then"),
        ("if options.z_loss > 0:", ">", ">=", "0 of it is added"),
    ),
    "ce_ext/softmax_loss.py": tuple(
        (
            "CrossEntropyOptions(reduction=0, ignore_index=0, input_is_log_prob=is_log_prob, keep_stats=False)[3:]",
            f"{name}=0",
            f"{name}= 1",
            "the first three options are cut off",
        )
        for name in ("reduction", "ignore_index")
    ),
}

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (file, line, line.replace(old, new)): reason
    for file, changes in BY_FILE.items()
    for line, old, new, reason in changes
}
