"""The toy's networks and language as the live page reads them: `python docs/building/live.py`.

Trains the pair of networks that the toy's commands take by default, or takes them from the cache,
and writes them into one script: a page that is opened from a folder may read scripts alone.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from entrgi_ref import prompt_key  # noqa: E402
from entrgi_ref.commands.provenance import commit  # noqa: E402
from toy import language  # noqa: E402
from toy.models import WRITABLE, ToyDenoiser, ToyReward  # noqa: E402
from toy.studies import FIRST_TRAINING_SEED  # noqa: E402
from toy.testbed import held_out_prompts  # noqa: E402
from toy.training import (  # noqa: E402
    DENOISER,
    REWARDS,
    DenoiserRecipe,
    RewardRecipe,
    cached,
)

FILE = ROOT / "docs" / "assets" / "live" / "networks.js"
START, BETWEEN, END = "(window.RECORDED ??= {}).live = ", ";\nwindow.RECORDED.weights = ", ";\n"
RECIPES: dict[str, DenoiserRecipe | RewardRecipe] = {
    "denoiser": DENOISER,
    "reward": REWARDS["medium"],
}
SKIPPED = "transformer.mask"
"""The causal mask, which is no weight."""


def states(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's weights in the order in which they are written."""
    return {name: value for name, value in network.state_dict().items() if name != SKIPPED}


def write(networks: dict[str, nn.Module], seed: int) -> str:
    """The script: what the page knows of the toy, and the weights as float32 in base64."""
    toy: dict[str, Any] = {
        "commit": commit(),
        "training_seed": seed,
        "vocabulary": language.VOCABULARY,
        "writable": WRITABLE.int().tolist(),
        "length": language.LENGTH,
        "topics": list(language.NOUNS),
        "styles": list(language.ADJECTIVES),
        "category": language.CATEGORY,
        "topic": language.TOPIC,
        "style": language.STYLE,
        "followers": {role: sorted(after) for role, after in language.FOLLOWERS.items()},
        "held_out": held_out_prompts(96),
        "keys": {str(p): str(prompt_key(str(p))) for p in language.PROMPTS},
        "networks": {
            name: {
                "size": asdict(RECIPES[name].size),
                "shapes": [[key, list(value.shape)] for key, value in states(network).items()],
            }
            for name, network in networks.items()
        },
    }
    numbers = torch.cat([v.flatten() for n in networks.values() for v in states(n).values()])
    weights = base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()
    return f"{START}{json.dumps(toy, separators=(',', ':'))}{BETWEEN}{json.dumps(weights)}{END}"


def read() -> tuple[dict[str, Any], bytes]:
    """What the page reads: the toy, and the weights' bytes."""
    text = FILE.read_text(encoding="utf-8")
    toy, _, weights = text.removeprefix(START).removesuffix(END).partition(BETWEEN)
    return json.loads(toy), base64.b64decode(json.loads(weights))


def networks() -> tuple[ToyDenoiser, ToyReward]:
    """The networks that the page reads, in Python and in float64."""
    toy, weights = read()
    numbers = torch.frombuffer(bytearray(weights), dtype=torch.float32).double()
    found: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        network = recipe.build().double()
        shapes = [(key, torch.Size(shape)) for key, shape in toy["networks"][name]["shapes"]]
        parts = numbers[: sum(shape.numel() for _, shape in shapes)]
        numbers = numbers[len(parts) :]
        values = parts.split([shape.numel() for _, shape in shapes])
        named = {key: value.view(shape) for (key, shape), value in zip(shapes, values, strict=True)}
        network.load_state_dict({**network.state_dict(), **named})
        found[name] = network
    return ToyDenoiser(found["denoiser"]), ToyReward(found["reward"])


def main() -> None:
    """Write the file."""
    seed = FIRST_TRAINING_SEED
    made = {name: cached(replace(recipe, seed=seed)) for name, recipe in RECIPES.items()}
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(write(made, seed), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
