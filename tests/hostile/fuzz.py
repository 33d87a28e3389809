"""Fuzz the readers of outside data: `make fuzz`.

    fuzz.py --seconds 60                        each reader for a minute
    fuzz.py --seconds 600 records               one reader
    fuzz.py --atheris --seconds 600 records     led by the lines that are run

Ends with 1 and writes the file to `fuzz-NAME` if a reader raises anything but a `ValueError` of one
line, or does not end within a minute. With --atheris (pip install atheris) libFuzzer says so.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs"), str(ROOT / "tests"), str(ROOT / "tests" / "hostile")]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of outside data.")
    parser.add_argument("names", nargs="*", help="of readers; by default all")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--atheris", action="store_true", help="one reader, led by coverage")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.atheris:
        _led(asked.names, asked.seconds)
        return
    import torch

    from fuzzed import targets

    torch.set_num_threads(1)
    known = targets()
    bad = [name for name in asked.names or known if not _clean(name, known[name], asked.seconds)]
    sys.exit(1 if bad else 0)


def _clean(name, target, seconds) -> bool:
    from corpus import HangError, refusal
    from fuzzed import mutated

    begin, files, refused = time.monotonic(), 0, 0
    while time.monotonic() < begin + seconds:
        seed = random.SystemRandom().randrange(2**64)
        data = mutated(target, seed)
        try:
            refused += refusal(lambda data=data: target.read(data)) is not None
        except (Exception, HangError):
            file = Path(f"fuzz-{re.sub('[^a-z.]', '-', name)}")
            file.write_bytes(data)
            traceback.print_exc()
            print(f"{name}: {files} files, then seed {seed}, kept in {file}")
            return False
        files += 1
    print(
        f"{name}: {files} files in {seconds} s, {refused} of them refused, the others read",
        flush=True,
    )
    return True


def _led(names, seconds) -> None:
    import atheris

    if len(names) != 1:
        sys.exit("--atheris: give one reader")
    with atheris.instrument_imports(include=["entrgi_ref"]):
        from corpus import refusal
        from fuzzed import folder, targets

        (target,) = (targets()[name] for name in names)
    seeds = folder() / "seeds"
    seeds.mkdir()
    (seeds / "valid").write_bytes(target.valid)
    options = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=8192", "-max_len=200000"]
    atheris.Setup(
        [sys.argv[0], *options, str(seeds)], lambda data: refusal(lambda: target.read(data))
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
