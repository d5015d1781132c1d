"""Bugs of the Python layer that no result can show, and why: a file, its lines, what they become."""

_SOFTMAX = "ce_ext/softmax_loss.py"
_PLAIN = "CrossEntropyOptions(reduction=0, ignore_index=0, input_is_log_prob=is_log_prob, keep_stats=False)[3:]"

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
}
