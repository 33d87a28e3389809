"""How networks are loaded: other attention, rounded weights, weights that wait outside the GPU."""

import dataclasses
import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from paper_runs import arguments, benchmark_file, invoke
from torch import nn
from transformers import AutoModelForSequenceClassification

from checkpoints import DREAM, LONG, PARITY, REWARD, SHORT, pair, response_tokens
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.commands.options import BITS, quantization
from entrgi_ref.models import (
    Dream,
    LikelihoodReward,
    RewardCheckpoint,
    SequenceReward,
    checkpoints,
    load_denoiser,
    loading,
)
from entrgi_ref.models.loading import PACKAGES, Loading, blank, spread
from entrgi_ref.paper.declared import benchmarks
from entrgi_ref.paper.declared.memory import predicted_memory
from entrgi_ref.paper.declared.testbed import DreamTestbed, _parameters
from entrgi_ref.paper.run.records import read_declaration, read_records

SMALL = SamplingConfig(GuidanceConfig(steps=2), trajectories=2, new_tokens=6, denoising_steps=6)
TIED = PARITY.parent / "parity-models" / "a2d-qwen3-tied-tiny"
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def inputs(denoiser, reward, seed=0):
    """A denoising step of prompts of two lengths, everything masked."""
    response = response_tokens(denoiser, 4, 6, seed)
    masked = torch.ones_like(response, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(24, reward.embeddings.shape[1], generator=generator) * 0.3
    return response, masked, mixed.to(reward.embeddings), response.flatten()


def value_and_gradient(reward, response, masked, mixed, likeliest):
    mixed = mixed.clone().requires_grad_()
    rewards = reward.bind([SHORT, LONG], 2).at(response, masked)(mixed, likeliest)
    return rewards.detach(), torch.autograd.grad(rewards.sum(), mixed)[0]


def logits_of(denoiser):
    encoded = denoiser.encode([SHORT, LONG])
    response = response_tokens(denoiser, 2, 5)
    masked = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], dtype=torch.bool)
    tokens = torch.cat([encoded.tokens, response.masked_fill(masked, denoiser.mask_id)], 1)
    return denoiser(tokens, torch.cat([encoded.valid, torch.ones_like(masked)], 1), masked)


def linear_layers(network):
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


# --- attention


@pytest.fixture
def softmax_in_double(monkeypatch):
    """Eager attention makes its softmax in float32, whatever the network's precision."""
    plain = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: plain(x, dim))


def test_eager_attention_hides_what_sdpa_hides(softmax_in_double):
    """In float64, with padding, hidden tokens and a prefix that was read before."""
    denoiser, reward = pair("float64")
    eager = Dream.from_pretrained(DREAM, dtype="float64", device="cpu", attention="eager")
    judge = SequenceReward.from_pretrained(REWARD, eager, dtype="float64", attention="eager")
    for network in (eager.network, judge.network):
        assert network.config._attn_implementation == "eager"
    torch.testing.assert_close(logits_of(eager), logits_of(denoiser), atol=1e-10, rtol=0)
    step = inputs(denoiser, reward)
    step[3][[2, 9]] = denoiser.eos_id
    found, expected = (value_and_gradient(one, *step) for one in (judge, reward))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    whole = dataclasses.replace(judge, prefix_cache=False)
    torch.testing.assert_close(value_and_gradient(whole, *step)[1], expected[1], atol=1e-10, rtol=0)
    texts = [SHORT, LONG], ["so it is", "it forgets"]
    torch.testing.assert_close(judge.score(*texts), reward.score(*texts), atol=1e-10, rtol=0)


# --- what cannot be had


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attention": "flash_attention_2"}, "attention: got 'flash_attention_2', which would not"),
        ({"attention": "flex_attention"}, "attention: got 'flex_attention', which would not hide"),
        ({"attention": "spda"}, "attention: got 'spda', expected one of .* did you mean 'sdpa'"),
        ({"quantize": "4bit"}, "quantize: got '4bit' on a CPU, .* take 8bit, or a GPU"),
        ({"quantize": "2bit"}, "quantize: got '2bit', expected one of '8bit', '4bit'"),
        ({"quantize": 8}, "quantize: got 8, expected one of"),
        ({"quantize": "8bit", "dtype": "float64"}, "dtype: got 'float64', .* with quantize"),
        ({"quantize": "8bit", "compiled": True}, "compiled: cannot be combined with quantize"),
        ({"quantize": "8bit", "cuda_graphs": True}, "cuda_graphs: cannot be combined with quant"),
        ({"quantize": "8bit", "adapter": "lora"}, "adapter: cannot be combined with quantize"),
        ({"offload": True}, "offload: got True on cpu, expected a GPU"),
        ({"offload": "yes"}, "offload: got 'yes', expected True or False"),
        ({"max_memory": 3.0}, "max_memory: got 3.0, of no use without offload"),
        ({"max_memory": -1.0, "offload": True}, "max_memory: got -1.0"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_loaded(monkeypatch, options, said):
    monkeypatch.setattr(loading, "find_spec", lambda package: True)
    with pytest.raises(ValueError, match=said) as error:
        Loading.of(**{"device": "cpu", **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "package"),
    [
        ({"quantize": "8bit", "device": "cpu"}, "torchao"),
        ({"quantize": "8bit", "device": "cpu"}, "accelerate"),
        ({"quantize": "8bit", "device": "cuda"}, "torchao"),
        ({"quantize": "4bit", "device": "cuda"}, "bitsandbytes"),
        ({"offload": True, "device": "cuda"}, "accelerate"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, options, package):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == package else True)
    field = "offload" if "offload" in options else "quantize"
    with pytest.raises(
        ValueError, match=f"{field}: got .*needs the package {package}; pip install"
    ):
        Loading.of(**options)


@pytest.mark.parametrize("other", ["compiled", "cuda_graphs", "adapter", "quantize", "dtype"])
def test_offload_goes_with_few_others(monkeypatch, other):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(loading, "find_spec", lambda name: True)
    given = {"adapter": "lora", "quantize": "8bit", "dtype": "float64"}.get(other, True)
    with pytest.raises(ValueError, match=f"{other}.* combined with|with {other}; take one"):
        Loading.of(device="cuda", offload=True, **{other: given})


@pytest.mark.parametrize("load", [Dream.from_pretrained, load_denoiser])
def test_denoisers_are_refused_without_a_look_at_the_folder(tmp_path, load):
    with pytest.raises(ValueError, match="attention: got"):
        load(tmp_path, device="cpu", attention="flash_attention_2")


@pytest.mark.parametrize("kind", [SequenceReward, LikelihoodReward])
def test_rewards_are_refused_too(kind):
    denoiser = load_denoiser(DREAM, dtype="float32", device="cpu")
    with pytest.raises(ValueError, match="quantize: got '4bit' on a CPU"):
        kind.from_pretrained(REWARD, denoiser, quantize="4bit")


# --- rounded weights


@needs_torchao
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_layers_are_rounded_and_embeddings_and_heads_are_not(dtype):
    denoiser, reward = pair_of(dtype, "8bit")
    for network, head in ((denoiser.network, "lm_head"), (reward.network, "score")):
        kinds = {
            name.rpartition(".")[2]: type(module.weight).__name__
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear)
        }
        assert kinds.pop(head) == "Parameter"
        assert len(kinds) == 7
        assert set(kinds.values()) == {"Int8Tensor"}
        assert network.get_input_embeddings().weight.dtype == getattr(torch, dtype)
        assert not any(p.requires_grad for p in network.parameters())
    assert denoiser.dtype == getattr(torch, dtype)


def pair_of(dtype, quantize):
    denoiser = Dream.from_pretrained(DREAM, dtype=dtype, device="cpu", quantize=quantize)
    reward = SequenceReward.from_pretrained(REWARD, denoiser, dtype=dtype, quantize=quantize)
    return denoiser, reward


@needs_torchao
def test_a_tied_output_layer_stays_the_table_of_embeddings():
    found = load_denoiser(TIED, dtype="float32", device="cpu", quantize="8bit")
    assert found.network.lm_head.weight is found.network.model.embed_tokens.weight
    assert type(found.network.lm_head.weight) is nn.Parameter
    assert len([m for m in linear_layers(found.network) if type(m.weight) is not nn.Parameter])
    plain = load_denoiser(TIED, dtype="float32", device="cpu")
    ours, theirs = logits_of(found), logits_of(plain)
    assert 0 < (ours - theirs).norm() < 0.05 * theirs.norm()


def rounded_back(network, plain, weight_of=lambda layer: layer.weight.dequantize()):
    """Give a plain network the weights that a rounded one computes with."""
    for rounded, layer in zip(linear_layers(network), linear_layers(plain), strict=True):
        if type(rounded.weight) is not nn.Parameter:
            layer.weight = nn.Parameter(weight_of(rounded).to(layer.weight), requires_grad=False)


def require_the_network_of_rounded_weights(denoiser, reward, **how):
    """The same logits, rewards and gradients."""
    plain, judge = pair("float32")
    before = logits_of(plain), value_and_gradient(judge, *inputs(plain, judge))
    rounded_back(denoiser.network, plain.network, **how)
    rounded_back(reward.network, judge.network, **how)
    assert torch.equal(reward.embeddings, judge.embeddings)
    torch.testing.assert_close(logits_of(denoiser), logits_of(plain), atol=1e-4, rtol=1e-4)
    step = inputs(plain, judge)
    found, expected = value_and_gradient(reward, *step), value_and_gradient(judge, *step)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    return before, (logits_of(denoiser), found)


@needs_torchao
def test_eight_bits_are_the_network_of_rounded_weights():
    before, after = require_the_network_of_rounded_weights(*pair_of("float32", "8bit"))
    (logits, (rewards, slopes)), (theirs, (judged, climbed)) = before, after
    assert 0 < (logits - theirs).norm() < 0.05 * logits.norm()
    assert 0 < (rewards - judged).abs().max() < 0.1 * rewards.std()
    assert torch.cosine_similarity(slopes.flatten(), climbed.flatten(), 0) > 0.99


@needs_torchao
def test_no_copies_of_rounded_weights_are_kept_for_the_backward_pass():
    """They would take more than the weights did before they were rounded."""
    _, reward = pair_of("float32", "8bit")
    shapes = {tuple(m.weight.shape) for m in linear_layers(reward.network)}
    kept = []
    embedded = torch.randn(3, 5, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        reward.network.model(inputs_embeds=embedded).last_hidden_state.sum().backward()
    assert kept
    assert not [x.shape for x in kept if {tuple(x.shape), tuple(x.shape[::-1])} & shapes]


@needs_torchao
def test_guidance_through_rounded_networks():
    denoiser, reward = pair_of("float32", "8bit")
    guided = generate(denoiser, reward, [SHORT, LONG], SMALL)
    assert guided.rewards.isfinite().all()
    reread = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", quantize="8bit")
    again = generate(denoiser, dataclasses.replace(reread, micro_batch=1), [SHORT, LONG], SMALL)
    assert torch.equal(again.tokens, guided.tokens)


def four_bits_on_a_cpu():
    """Whether bitsandbytes has gradients on this processor."""
    if find_spec("bitsandbytes") is None:
        return False
    from bitsandbytes.nn.modules import has_avx512bf16

    return not has_avx512bf16()


@pytest.mark.skipif(not four_bits_on_a_cpu(), reason="no gradients of bitsandbytes on this CPU")
def test_four_bits_are_the_network_of_rounded_weights(monkeypatch):
    """Refused on a CPU, as it does not work on all; on this one it does."""
    monkeypatch.setattr(Loading, "_require_quantize", lambda self: None)
    from bitsandbytes.functional import dequantize_4bit

    networks = pair_of("float32", "4bit")
    for one, head in zip(networks, ("lm_head", "score"), strict=True):
        assert type(getattr(one.network, head).weight) is nn.Parameter
    require_the_network_of_rounded_weights(
        *networks,
        weight_of=lambda layer: dequantize_4bit(layer.weight.data, layer.weight.quant_state),
    )
    assert generate(*networks, [SHORT], SMALL).rewards.isfinite().all()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_rounded_networks_on_a_gpu(quantize):
    pytest.importorskip(loading.PACKAGES[quantize])
    denoiser = Dream.from_pretrained(DREAM, dtype="bfloat16", device="cuda", quantize=quantize)
    reward = SequenceReward.from_pretrained(REWARD, denoiser, dtype="bfloat16", quantize=quantize)
    assert denoiser.network.device.type == reward.device.type == "cuda"
    assert generate(denoiser, reward, [SHORT, LONG], SMALL).rewards.isfinite().all()


# --- weights that wait


def test_what_is_no_layer_stays_on_the_device_and_the_last_layers_leave():
    config = pair("float32")[1].network.config
    network = blank(AutoModelForSequenceClassification, config)
    layer, whole = (
        sum(p.numel() for p in module.parameters()) * 4
        for module in (network.model.layers[0], network)
    )
    rest = whole - 2 * layer
    names = {"model.embed_tokens", "model.norm", "model.rotary_emb", "score"}
    for room, there in ((rest, 0), (rest + layer, 1), (whole - 1, 1), (whole, 2)):
        places = spread(network, "cuda:1", torch.float32, room)
        assert {name: places.pop(name) for name in names} == dict.fromkeys(names, "cuda:1")
        assert places == {f"model.layers.{i}": "cuda:1" if i < there else "cpu" for i in range(2)}
    with pytest.raises(ValueError, match="all but the layers takes"):
        spread(network, "cuda:1", torch.float32, rest - 1)


def test_a_table_that_is_tied_takes_its_room_once():
    """Such as that of Qwen3-0.6B, which is a fifth of the network."""
    network = nn.Module()
    network.table, network.head = nn.Embedding(10, 7), nn.Linear(7, 10, bias=False)
    network.head.weight = network.table.weight
    network.layers = nn.ModuleList(nn.Linear(10, 10, bias=False) for _ in range(2))
    places = spread(network, "cuda", torch.float32, 4 * (70 + 100))
    assert places == {"table": "cuda", "head": "cuda", "layers.0": "cuda", "layers.1": "cpu"}


def test_of_several_lists_of_layers_the_largest_leaves():
    """Such as beside the many small ones of a part that sees pictures."""
    network = nn.Module()
    network.eyes = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(5))
    network.model = nn.Module()
    network.model.layers = nn.ModuleList(nn.Linear(10, 10, bias=False) for _ in range(2))
    network.score = nn.Linear(3, 1, bias=False)
    network.score.register_buffer("scale", torch.ones(1000))  # which is no weight
    for room, there in ((8 + 100, 1), (8 + 200, 2)):
        places = spread(network, "cuda", torch.float32, 4 * room)
        assert places.pop("eyes") == places.pop("score") == "cuda"
        assert places == {f"model.layers.{i}": "cuda" if i < there else "cpu" for i in range(2)}
    with pytest.raises(ValueError, match="all but the layers takes"):
        spread(network, "cuda", torch.float32, 4 * 8 - 1)


@pytest.fixture
def waiting(monkeypatch):
    """Networks of which the last layer waits on the disk: on a CPU, what waits for a GPU on one."""
    monkeypatch.setattr(Loading, "_require_offload", lambda self: None)

    def places(network, device, dtype, room):
        assert (str(device), room) == ("cpu", 2**30)
        found = spread(network, device, dtype, 2**30)
        last = list(found)[-1]
        assert last.endswith(".layers.1")
        return found | {last: "disk"}

    monkeypatch.setattr(loading, "spread", places)
    how = {"offload": True, "max_memory": 1.0}
    denoiser = Dream.from_pretrained(DREAM, dtype="float32", device="cpu", **how)
    return denoiser, SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", **how)


def test_layers_that_wait_change_nothing(waiting):
    """Exactly: logits, rewards and gradients, and a whole guided run."""
    for network in (one.network for one in waiting):
        assert {p.device.type for p in network.model.layers[0].parameters()} == {"cpu"}
        assert {p.device.type for p in network.model.layers[1].parameters()} == {"meta"}
    denoiser, reward = pair("float32")
    assert torch.equal(waiting[1].embeddings, reward.embeddings)
    assert torch.equal(logits_of(waiting[0]), logits_of(denoiser))
    step = inputs(denoiser, reward)
    found, expected = (value_and_gradient(one, *step) for one in (waiting[1], reward))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    whole = dataclasses.replace(waiting[1], prefix_cache=False, micro_batch=3)
    torch.testing.assert_close(value_and_gradient(whole, *step), expected)
    ours, theirs = (generate(*both, [SHORT, LONG], SMALL) for both in (waiting, (denoiser, reward)))
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.rewards, theirs.rewards)


def test_layers_that_wait_leave_the_device_again(waiting):
    """No weight of theirs is held for the backward pass, nor after it."""
    layer = waiting[1].network.model.layers[1]
    shapes = {tuple(module.weight.shape) for module in linear_layers(layer)}

    def held():
        return [p for p in layer.parameters() if not p.is_meta]

    kept = []
    embedded = torch.randn(3, 5, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        total = layer(embedded, position_embeddings=rotations(waiting[1], 5))
    assert not [x.shape for x in kept if {tuple(x.shape), tuple(x.shape[::-1])} & shapes]
    assert not held()
    total.sum().backward()
    assert embedded.grad.norm() > 0
    assert not held()


def rotations(reward, length):
    return reward.network.model.rotary_emb(torch.zeros(3, length, 32), torch.arange(length)[None])


def test_weights_that_wait_are_read_from_the_folder_as_they_are(waiting):
    """Nothing is called that moves a dispatched network, which accelerate forbids."""
    with pytest.raises(RuntimeError, match="offloaded"):
        waiting[1].network.to("cpu")


@pytest.mark.gpu
@needs_gpu
def test_half_of_a_network_on_a_gpu():
    """Room for one layer of the reward model's two."""
    how = {"offload": True, "max_memory": 1e-4}
    denoiser = Dream.from_pretrained(DREAM, dtype="float32", device="cuda")
    plain = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32")
    waiting = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", **how)
    assert any(p.is_meta for p in waiting.network.parameters())
    ours, theirs = (generate(denoiser, one, [SHORT, LONG], SMALL) for one in (waiting, plain))
    assert torch.equal(ours.tokens, theirs.tokens)


# --- the commands `run` and `plan`


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (None, {}),
        (["8bit"], {"denoiser": "8bit", "reward": "8bit"}),
        (["denoiser=4bit"], {"denoiser": "4bit"}),
        (["reward=8bit", "denoiser=4bit"], {"denoiser": "4bit", "reward": "8bit"}),
        (["8bit", "reward=4bit"], {"denoiser": "8bit", "reward": "4bit"}),
        (["reward=4bit", "8bit"], {"denoiser": "8bit", "reward": "4bit"}),
    ],
)
def test_which_network_is_rounded_to_what(words, meant):
    assert quantization(words) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["judge=8bit"], "quantize: got 'judge', expected one of 'denoiser', 'reward'"),
        (["=8bit"], "quantize: got '', expected one of 'denoiser', 'reward'"),
        (["reward=3bit"], "quantize: got '3bit', expected one of '8bit', '4bit'"),
        (["reward=8bit", "reward=8bit"], "quantize: reward is given twice"),
        (["8bit", "4bit"], "quantize: that of both networks is given twice"),
    ],
)
def test_other_words_are_refused(words, said):
    with pytest.raises(ValueError, match=said):
        quantization(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quantize", "4bit"], "quantize: got '4bit' on a CPU"),
        (["--quantize", "reward=8bit"], "quantize: got '8bit', which needs the package torchao"),
        (["--quantize", "denoiser=8bit"], "quantize: got '8bit', which needs the package torchao"),
        (["--reward-device", "cuda:1"], "reward_device: got 'cuda:1', but this machine has 0 CUDA"),
        (["--reward-device", "there"], "reward_device: got 'there', expected auto, cpu"),
        (["--offload"], "offload: got True on cpu, expected a GPU"),
        (["--attention", "flash_attention_2"], "attention: got 'flash_attention_2', which would"),
        (["--attention", "none"], "attention: got 'none', expected one of"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_commands_refuse_before_anything_is_looked_at(tmp_path, monkeypatch, command, words, said):
    monkeypatch.setattr(checkpoints, "locate", lambda *a, **k: pytest.fail("it is looked for"))
    monkeypatch.setattr(benchmarks, "named", lambda *a, **k: pytest.fail("it is fetched"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "torchao" else True)
    _, *options = arguments(benchmark_file(tmp_path), tmp_path / "run")
    with pytest.raises(ValueError, match=said):
        invoke(command, *options, *words)


def test_options_of_the_machine_reach_the_networks_and_change_no_declaration(monkeypatch):
    given = []
    monkeypatch.setattr(checkpoints, "identity", lambda path: {"name": "tiny"})
    plain = DreamTestbed(str(DREAM), {"tiny": str(REWARD)}, [], "auto", "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    testbed = dataclasses.replace(plain, reward_device="cuda:1", attention="eager")
    assert testbed.declaration == plain.declaration
    assert testbed.denoiser().network.config._attn_implementation == "eager"
    loaded = SimpleNamespace(network=None)
    monkeypatch.setattr(
        RewardCheckpoint, "load", lambda self, denoiser, **how: given.append(how) or loaded
    )
    assert testbed.reward("tiny") is loaded
    assert given[0]["device"] == torch.device("cuda:1")
    assert given[0]["dtype"] == torch.float32  # the mask predictor's, of which the run is
    assert given[0]["attention"] == "eager"


def test_rounded_weights_are_another_run():
    plain = DreamTestbed(str(DREAM), {"tiny": str(REWARD)}, [], "auto", "cpu")
    rounded = dataclasses.replace(plain, quantize={"reward": "8bit"})
    assert rounded.declaration == {**plain.declaration, "quantize": {"reward": "8bit"}}
    assert "quantize" not in plain.declaration


@needs_torchao
def test_a_run_on_rounded_networks(tmp_path):
    words = arguments(benchmark_file(tmp_path), tmp_path / "run", "--quantize", "8bit")
    small = ("--methods", "entrgi,bon_equal_compute", "--seeds", "1", "--prompts", "2")
    invoke(*words, *small)
    declared = read_declaration(tmp_path / "run")
    assert declared["quantize"] == {"denoiser": "8bit", "reward": "8bit"}
    assert {r["status"] for r in read_records(tmp_path / "run")} == {"ok"}
    invoke(*words, *small)  # it is gone on with
    plain = arguments(tmp_path / "questions.jsonl", tmp_path / "run")
    with pytest.raises(ValueError, match="quantize"):
        invoke(*plain, *small)


def bytes_of(network):
    """What weights take, whatever they are made of."""
    found = 0
    for p in {id(p): p for p in network.parameters()}.values():
        state = getattr(p, "quant_state", None)
        parts = [p.qdata, p.scale] if hasattr(p, "qdata") else [p.data]
        parts += [] if state is None else [state.absmax]
        found += sum(part.numel() * part.element_size() for part in parts)
    return found


def require_predicted_bytes(quantize):
    denoiser, reward = pair_of("float32", quantize)
    plain = pair("float32")
    written = [json.loads((f / "config.json").read_text()) for f in (DREAM, REWARD)]
    written[0]["model_type"] = "Dream"
    both = {"denoiser": quantize, "reward": quantize}
    for how, networks in (({}, plain), (both, (denoiser, reward))):
        predicted = predicted_memory(*written, [9], 2, 4, "float32", device="cpu", quantize=how)
        assert predicted.denoiser == bytes_of(networks[0].network)
        assert predicted.reward == bytes_of(networks[1].network)
    for ours, theirs in zip((denoiser, reward), plain, strict=True):
        assert _parameters(ours.network) == _parameters(theirs.network)


@needs_torchao
def test_the_bytes_of_eight_bits_are_predicted():
    require_predicted_bytes("8bit")


@pytest.mark.skipif(not four_bits_on_a_cpu(), reason="no gradients of bitsandbytes on this CPU")
def test_the_bytes_of_four_bits_are_predicted(monkeypatch):
    monkeypatch.setattr(Loading, "_require_quantize", lambda self: None)
    require_predicted_bytes("4bit")


def test_a_dry_plan_counts_with_rounded_weights(tmp_path):
    _, *options = arguments(tmp_path / "none.jsonl", tmp_path)

    def peak(*words):
        file = tmp_path / "memory.json"
        text = invoke("plan", *options, "--dry", "--json", file, *words)
        (table,) = json.loads(file.read_text())["tables"].values()
        return text, table["rows"][0]["peak_gib"]

    plain, whole = peak()
    assert "rounded" not in plain
    assert "Not counted" not in plain
    text, less = peak("--quantize", "4bit")
    assert "Weights of layers are rounded: denoiser 4bit, reward 4bit." in text
    assert less < whole
    assert peak("--quantize", "8bit", "--quantize", "reward=4bit")[1] > less
    assert (
        "Not counted with: --reward-device, --offload."
        in peak("--reward-device", "cuda:1", "--offload")[0]
    )
    with pytest.raises(ValueError, match="quantize: got '3bit'"):
        peak("--quantize", "3bit")


def test_the_command_line_offers_what_there_is():
    assert tuple(PACKAGES) == BITS


def test_an_option_that_there_is_not_is_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'quantise'"):
        load_denoiser(DREAM, quantise="8bit")


def test_an_option_that_there_is_not_is_said_without_an_inner_class():
    with pytest.raises(TypeError, match=r"^got an unexpected keyword argument 'dtyp'; of .*dtype"):
        Loading.of(dtyp="float32")


@pytest.mark.parametrize("field", ["compiled", "cuda_graphs"])
@pytest.mark.parametrize("value", ["yes", 1, None])
def test_switches_are_true_or_false(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got {value!r}, expected True or False"):
        Loading.of("float32", "cpu", **{field: value})
