"""Networks of random weights at the shapes of the real ones, and what is measured of them."""

import platform
import time
from dataclasses import dataclass, replace

import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForSequenceClassification

from checkpoints import DREAM, REWARD, response_tokens
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.commands.provenance import commit
from entrgi_ref.models import Dream, SequenceReward, VocabularyMap
from entrgi_ref.models.tokenizers import load_tokenizer, token_strings


@dataclass(frozen=True)
class Shape:
    dream: dict
    reward: dict
    prompts: tuple[int, ...]
    """Tokens of each prompt, at least."""
    config: SamplingConfig


PAPER = Shape(
    dream={
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
    },
    reward={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
    },
    prompts=(100, 250, 400, 600),
    config=SamplingConfig(trajectories=4, new_tokens=128, denoising_steps=3),
)
TINY = Shape(
    dream={
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    },
    reward={
        "vocab_size": 390,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
    },
    prompts=(10, 25, 40, 60),
    config=SamplingConfig(trajectories=4, new_tokens=16, denoising_steps=3),
)


def networks(shape, device, dtype=torch.bfloat16):
    """Both networks with random weights, and the tokenizers of the tiny checkpoints.

    Their vocabularies are as wide as the real ones, but few of their ids have a token.
    """
    torch.manual_seed(0)
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            dream = Qwen2ForCausalLM(
                Qwen2Config(**shape.dream, rope_parameters=rope, tie_word_embeddings=False)
            )
            reward = Qwen3ForSequenceClassification(
                Qwen3Config(**shape.reward, rope_parameters=rope, num_labels=1, pad_token_id=380)
            )
        finally:
            torch.set_default_dtype(torch.float32)
    tokenizer, reward_tokenizer = load_tokenizer(DREAM, "Qwen2Tokenizer"), load_tokenizer(REWARD)
    tokens = token_strings(tokenizer, shape.dream["vocab_size"])
    writable = torch.tensor([token is not None for token in tokens], device=device)
    writable[tokenizer.mask_token_id] = False
    denoiser = Dream(
        network=dream.requires_grad_(False).eval(),
        tokenizer=tokenizer,
        tokens=tokens,
        writable=writable,
        mask_id=tokenizer.mask_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    vocabulary = VocabularyMap.by_string(tokens, reward_tokenizer.get_vocab(), fallback=382)
    table = reward.get_input_embeddings().weight.detach()
    judge = SequenceReward(
        network=reward.requires_grad_(False).eval(),
        tokenizer=reward_tokenizer,
        vocabulary=vocabulary.to(torch.device(device)),
        embeddings=vocabulary.to(torch.device(device)).embeddings(table, "eos"),
        eos_id=denoiser.eos_id,
        pad_id=denoiser.pad_id,
        prefix_cache=True,
    )
    return denoiser, judge


def prompts_of(denoiser, lengths):
    """A prompt of at least each number of tokens."""
    text = "write a short story about a river that forgets its way home; "
    per = len(denoiser.tokenizer(text)["input_ids"])
    return [f"{i}: {text * (length // per + 1)}" for i, length in enumerate(lengths)]


def cached_and_not(denoiser, judge, prompts, shape):
    """Rewards, and their gradients by what is read, with the prefix cache and without it."""
    K, N = shape.config.trajectories, shape.config.new_tokens
    device = judge.embeddings.device
    response = response_tokens(denoiser, len(prompts) * K, N).to(device)
    masked = (torch.arange(N, device=device) % 2 == 1).expand_as(response).clone()
    mixed = judge.embeddings[response[masked]].clone().requires_grad_()
    found = []
    for reward in (judge, replace(judge, prefix_cache=False)):
        rewards = reward.bind(prompts, K).at(response, masked)(mixed, response[masked])
        found += [rewards.detach(), torch.autograd.grad(rewards.sum(), mixed)[0]]
    return found


def measure(shape, device, dtype=torch.bfloat16):
    """One guided run at a shape: a run record."""
    denoiser, judge = networks(shape, device, dtype)
    prompts = prompts_of(denoiser, shape.prompts)
    cuda = device.startswith("cuda")
    cached, gradient, plain, plain_gradient = cached_and_not(denoiser, judge, prompts, shape)
    error = (cached - plain).abs().max().item()
    cosine = torch.cosine_similarity(
        gradient.float().flatten(), plain_gradient.float().flatten(), dim=0
    ).item()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    records, seconds = [], {}
    for cache in (True, False):
        reward = replace(judge, prefix_cache=cache)
        generate(denoiser, reward, prompts, shape.config)  # first calls are slow
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        generation = generate(
            denoiser, reward, prompts, shape.config, observe=records.append if cache else None
        )
        if cuda:
            torch.cuda.synchronize()
        seconds["cached" if cache else "not cached"] = time.perf_counter() - start
        if cuda and cache:
            peak = torch.cuda.max_memory_allocated() / 2**30
    return {
        "command": "python -m pytest -m gpu tests/test_gpu.py",
        "testbed": "random networks of the sizes of Dream-7B and the 1.7B reward model",
        "commit": commit(),
        "settings": {
            "dream": shape.dream,
            "reward": shape.reward,
            "dtype": str(dtype),
            "sampling": shape.config.to_json(),
            "guidance": GuidanceConfig().weight,
        },
        "seeds": [0],
        "prompt_tokens": denoiser.encode(prompts).valid.sum(1).tolist(),
        "machine": torch.cuda.get_device_name() if cuda else platform.machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "cache": {"largest_reward_difference": error, "gradient_cosine": cosine},
        "reward_spread": plain.float().std().item(),
        "finite": all(
            bool(t.isfinite().all()) for r in records for t in (r.rewards, r.weight, r.E, r.D)
        )
        and bool(generation.rewards.isfinite().all()),
        "denoising_steps_run": len(records),
        "peak_memory_gib": peak if cuda else None,
        "timing": {"seconds": seconds},
    }
