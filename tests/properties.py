"""How many examples a property is tried on: a profile's share of what is usual for it."""

import math

from hypothesis import Phase, settings

PROFILES = {
    "dev": {"max_examples": 30},
    "ci": {"max_examples": 50, "derandomize": True},  # a push does not fail by chance
    "deep": {"max_examples": 1000},
    # The same at each run, and a failure is enough: nobody asks for its smallest example.
    "mutants": {
        "max_examples": 30,
        "derandomize": True,
        "database": None,
        "phases": (Phase.explicit, Phase.generate),
    },
}
for name, options in PROFILES.items():
    settings.register_profile(name, deadline=None, **options)


def tried(usual: int) -> settings:
    """On half as many in CI, on fewer by `make test`, on ten times as many by `make test-deep`."""
    return settings(max_examples=math.ceil(usual * settings().max_examples / 100))
