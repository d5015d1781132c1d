"""Bugs of the Python layer that no result can show, and why: a file, its lines, what they become."""

_BINARY, _PREDICTIONS, _SOFTMAX = "ce_ext/binary_loss.py", "ce_ext/predictions.py", "ce_ext/softmax_loss.py"
_PLAIN = "CrossEntropyOptions(reduction=0, ignore_index=0, input_is_log_prob=is_log_prob, keep_stats=False)[3:]"
_ALPHA = "class_alpha, alpha = (alpha, -1.0) if isinstance(alpha, Tensor) else (None, alpha)"
_GAP = "gap = torch.where(self.odds > 0.5, -torch.expm1(-self.distance), 1 - self.odds)"
_REST = "rest = torch.where(p > 0.5, -torch.expm1(-n), 1 - p)  # so that its derivative, p, does not cancel"
_BOUND = "bound = 700.0 if x.dtype == torch.float64 else 80.0"
_FAR = "is_far = (x.abs() > bound) & may_split"
_SPLIT = "return x.where(~is_far, bound * x.sign()), (x.abs() - bound).where(is_far, 0)"
_POWER = "if exponent == 0 or exponent >= 1:"
_LOG_SUM = "self.log_sum = torch.log1p(below) + (self.max - self.max)  # an infinite maximum makes the row NaN"
_CERTAIN = "rest = rest.clamp(min=1024 * torch.finfo(n.dtype).smallest_normal)"

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "ce_ext/checks.py",
        "if type(value) is int or isinstance(value, torch.SymInt):",
        "if type(value) is int and isinstance(value, torch.SymInt):",
    ): "operator.index gives integers back as they are, and the ops make them of symbols anyway",
    **{
        (_SOFTMAX, _PLAIN, _PLAIN.replace(f"{name}=0", f"{name}= 1")): "the first three options are cut off"
        for name in ("reduction", "ignore_index")
    },
    (_BINARY, _ALPHA, _ALPHA.replace("-1.0", "1.0")): "the alphas of classes are instead of the one",
    (_PREDICTIONS, "self.is_pos = x > 0", "self.is_pos = x >= 0"): "both sides meet in 0",
    (_PREDICTIONS, _GAP, _GAP.replace(">", ">=")): "neither way cancels at 0.5",
    (_PREDICTIONS, _REST, _REST.replace(">", ">=")): "neither way cancels at 0.5",
    (_PREDICTIONS, _BOUND, _BOUND.replace("700", "701")): "any bound serves beyond which e^-x is proportional to 1 - p",
    (_PREDICTIONS, _BOUND, _BOUND.replace("80", "81")): "likewise",
    (_PREDICTIONS, _FAR, _FAR.replace(">", ">=")): "likewise",
    (_PREDICTIONS, _SPLIT, _SPLIT.replace("*", "/")): "a sign, by which nothing else changes",
    (_PREDICTIONS, _POWER, _POWER.replace(">=", ">")): "both ways are right, and one of them is cheaper",
    (_PREDICTIONS, _POWER, _POWER.replace("1", "2")): "likewise",
    (_PREDICTIONS, _LOG_SUM, _LOG_SUM.replace("+", "-")): "of 0 or NaN",
    (_PREDICTIONS, _CERTAIN, _CERTAIN.replace("1024", " 1025")): "any bound serves that is far below rounding",
}
