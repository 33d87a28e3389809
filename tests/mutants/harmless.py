"""Why mutants that no test notices are harmless."""

from __future__ import annotations

import re
from fnmatch import fnmatch

AT_ONCE = "how fast, or in how much memory: the numbers are the same"
ANOTHER_WAY = "another way of the search, to the same end"
ONE_AXIS = "the axis is the only one"

REASONS: tuple[tuple[str, str, str], ...] = (
    # The file, a pattern in the change, the reason.
    ("*", r"unflatten\(0, .* -> .*unflatten\( -1, ", ONE_AXIS),
    ("*", r"flatten\(\)\.cumsum\( -1\)", ONE_AXIS),
    ("*", r"range\(steps if len\(logits\) else -1\)", "a range up to -1 is empty too"),
    ("*", r"^@torch.enable_grad\(\) -> ", "`inference_mode(False)` turns gradients on, too"),
    ("entrgi_ref/checks.py", r"^@cache -> ", AT_ONCE),
    ("entrgi_ref/draws.py", r"number - 2\*\*63", "the same number modulo 2^64"),
    ("entrgi_ref/fast/rows.py", r"not not given", AT_ONCE),
    ("entrgi_ref/fast/nucleus.py", r"triton", "asked on a GPU alone"),
    ("entrgi_ref/fast/nucleus.py", r"ZERO, INFINITE", "the next number below is the same"),
    ("entrgi_ref/rivals/boards.py", r"torch.zeros\( 1", "nobody reads it"),
    ("entrgi_ref/config.py", r"len\(set\(blanks\)\) < 1", "what follows finds the same"),
    ("entrgi_ref/draws.py", r"not fast_draw.applies", AT_ONCE),
    ("entrgi_ref/fast/draw.py", r"not blocks.is_cpu", AT_ONCE),
    ("entrgi_ref/fast/draw.py", r"LARGE", AT_ONCE),
    ("entrgi_ref/fast/draw.py", r"F.pad\(sums", "what is put at the end, or cut off, is not read"),
    ("entrgi_ref/fast/draw.py", r"clamp_max\(mass.shape\[1\] [+-] ", "`minimum` has bounded it"),
    ("entrgi_ref/fast/draw.py", r"beyond", "what lies beyond is the last token once more"),
    ("entrgi_ref/fast/nucleus.py", r"top_p \* total", ANOTHER_WAY),
    ("entrgi_ref/fast/nucleus.py", r"least > EXACT|values.min", AT_ONCE),
    (
        "entrgi_ref/fast/nucleus.py",
        r"EXACT = ",
        "one bit more adds up exactly too, one less is slower",
    ),
    (
        "entrgi_ref/fast/nucleus.py",
        r"^if kept <?=? ?< equal|kept < equal.* -> if kept <= equal|tied",
        "where nothing is tied, nothing is taken out",
    ),
    ("entrgi_ref/fast/nucleus.py", r"until", "so many equals are only asked for being too many"),
    (
        "entrgi_ref/fast/nucleus.py",
        r"sample|guess|better|margin|low|high|limit|SPREAD|FEW|SAMPLE",
        ANOTHER_WAY,
    ),
    ("entrgi_ref/fast/rows.py", r"first.numel|size = max", AT_ONCE),
    (
        "entrgi_ref/orders.py",
        r"torch.where\(masked, *(-1, 2|1, 2|0, *3)\)",
        "the order of the groups is the same",
    ),
    ("entrgi_ref/fast/rows.py", r"-len\(first\)", "a list may be longer than there are parts"),
    ("entrgi_ref/fast/unchanged.py", r"fresh == n > 1", AT_ONCE),
    ("entrgi_ref/fast/rows.py", r"not table.is_cpu", AT_ONCE),
    ("entrgi_ref/rivals/smc.py", r"reached \* reached", "the sum is 1 but for its rounding"),
    ("entrgi_ref/protocols.py", r"filler = ", "any token that is not the mask serves"),
    ("entrgi_ref/rivals/boards.py", r"self.steps\[ (-1|1)\]", "one precision for all steps"),
    ("entrgi_ref/rivals/lookahead.py", r"stable=False", "a CPU sorts small rows in a stable way"),
    ("entrgi_ref/rivals/lookahead.py", r"new_full", "all that is not masked is overwritten"),
)


def why(file: str, change: str) -> str:
    """The reason. `KeyError` if there is none."""
    for glob, pattern, reason in REASONS:
        if fnmatch(file, glob) and re.search(pattern, change):
            return reason
    raise KeyError(f"{file}: {change}")
