"""What is taken where nothing is said: a change of it changes what everybody gets."""

import importlib
import inspect
import operator
from dataclasses import MISSING, fields

import pytest

LOADED = {"dtype": "auto", "device": "auto", "compiled": False}
CHECKPOINT = {"revision": None, "unmatched": "eos", "adapter": None}
REWARD = {"prefix_cache": True, "cuda_graphs": False, "micro_batch": None}
RECIPE = {"seed": 0, "batch": 64, "learning_rate": 4e-3, "examples": 60_000}
DEFAULTS = {
    "entrgi_ref.config:GuidanceConfig": {
        "weight": "entrgi",
        "steps": 3,
        "step_size": 0.5,
        "dtype": "float32",
        "epsilon": 0.0,
        "optimiser": "adam",
    },
    "entrgi_ref.config:SamplingConfig": {
        "trajectories": 4,
        "new_tokens": 128,
        "denoising_steps": 128,
        "temperature": 0.7,
        "top_p": 0.95,
        "order": "entropy",
        "order_temperature": 0.0,
        "eos_last": True,
        "write_every_id": False,
        "skip_empty_steps": True,
        "seed": 0,
    },
    "entrgi_ref.denoising:generate": {
        "config": None,
        "start": None,
        "keys": None,
        "observe": None,
        "draws": None,
        "vocabulary_batch": None,
    },
    "entrgi_ref.denoising:predict": {"dtype": None, "every_id": False, "n": None},
    "entrgi_ref.draws:KeyedStepDraws.uniform": {"gradient_step": 0},
    "entrgi_ref.guidance:guide": {"optimiser": "adam", "observe": None, "trajectories": None},
    "entrgi_ref.orders:rank": {"order": "entropy", "order_temperature": 0.0},
    "entrgi_ref.orders:commit": {"put_last": None},
    "entrgi_ref.relaxation:entropy": {"epsilon": 0.0},
    "entrgi_ref.relaxation:entropy_weight": {"temperature": 1.0, "epsilon": 0.0},
    "entrgi_ref.models.causal:CausalReward": REWARD,
    "entrgi_ref.models.combined:examine_reward": CHECKPOINT,
    "entrgi_ref.models.denoiser:DenoiserCheckpoint.examine": {"revision": None, "family": None},
    "entrgi_ref.models.denoiser:DenoiserCheckpoint.load": LOADED,
    "entrgi_ref.models.denoiser:load_denoiser": {"revision": None, **LOADED, "family": None},
    "entrgi_ref.models.denoiser:Dream.from_pretrained": {"revision": None, **LOADED},
    "entrgi_ref.models.likelihood:LikelihoodReward": REWARD,
    "entrgi_ref.models.likelihood:LikelihoodReward.from_pretrained": {"tokens": None, **CHECKPOINT},
    "entrgi_ref.models.loading:Loading": {
        "quantize": None,
        "offload": False,
        "max_memory": None,
        "attention": "sdpa",
    },
    "entrgi_ref.models.loading:Loading.of": {
        **LOADED,
        "cuda_graphs": False,
        "adapter": None,
        "field": "device",
    },
    "entrgi_ref.models.loading:Together.of": {
        "reward_device": None,
        "offload": False,
        "attention": "sdpa",
        "compiled": False,
        "cuda_graphs": False,
        "adapter": None,
    },
    "entrgi_ref.models.sequence:RewardCheckpoint.examine": CHECKPOINT,
    "entrgi_ref.models.sequence:RewardCheckpoint.load": {
        "tokens": None,
        "dtype": "auto",
        "device": None,
        **REWARD,
    },
    "entrgi_ref.models.sequence:SequenceReward": REWARD,
    "entrgi_ref.models.sequence:SequenceReward.from_pretrained": {
        "tokens": None,
        "dtype": "auto",
        "device": None,
        **CHECKPOINT,
        **REWARD,
    },
    "entrgi_ref.models.vocabulary:VocabularyMap.by_string": {"unmatched": "eos"},
    "entrgi_ref.paper.declared.memory:predicted_memory": {
        "dtype": "bfloat16",
        "guidance_dtype": "float32",
        "gradient_steps": 3,
        "device": "cuda",
        "suffix": 2,
        "micro_batch": None,
        "vocabulary_batch": None,
        "quantize": None,
        "pauses": False,
    },
    "entrgi_ref.paper.declared.plan:Plan.of": {"methods": (), "gradient_steps": None},
    "entrgi_ref.paper.judged.judging:run": {"other_version": False},
    "entrgi_ref.paper.run.cluster:Cluster": {"address": None, "actors": None, "gpus": True},
    "entrgi_ref.paper.run.folder:RunFolder.lock": {"wait": False},
    "entrgi_ref.paper.run.folder:RunFolder.refresh": {"forget_failed": False},
    "entrgi_ref.paper.run.start:run": {
        "retry_failed": False,
        "other_version": False,
        "give_up_after": 16,
        "cluster": None,
    },
    "entrgi_ref.paper.shown.export:write": {"aggregation_names": False},
    "entrgi_ref.paper.shown.intervals:bootstrap": {"statistic": None, "seed": 0},
    "entrgi_ref.paper.shown.intervals:bootstraps": {"statistic": None, "seed": 0},
    "entrgi_ref.paper.shown.summary:Run.read": {"whole": True},
    "entrgi_ref.paper.shown.summary:Value.text": {"digits": 2},
    "entrgi_ref.rivals:smc": {"config": None, "beta": 1.0, "keys": None},
    "entrgi_ref.rivals:self_smc": {"config": None, "beta": 1.0, "keys": None},
    "entrgi_ref.rivals:lookahead": {"config": None, "candidates": 8, "beta": 1.0, "keys": None},
    "entrgi_ref.rivals:damped": {"config": None},
    "entrgi_ref.watching.terminal:TerminalView": {
        "trajectory": 0,
        "colour": True,
        "separator": " ",
    },
    "toy.__main__:demo": {
        "quick": False,
        "out": None,
        "reward": "medium",
        "trajectories": 4,
        "denoising_steps": 16,
        "gradient_steps": 3,
        "step_size": 0.5,
        "optimiser": "adam",
        "temperature": 0.7,
        "top_p": 0.95,
        "order": "entropy",
        "training_seed": 10,
        "embedding_std": 1.0,
        "threads": 2,
    },
    "toy.__main__:watch": {
        "prompt": "sea castle gloomy",
        "method": "entrgi",
        "template": None,
        "quick": False,
        "reward": "medium",
        "gradient_steps": 3,
        "step_size": 0.5,
        "optimiser": "adam",
        "order": "entropy",
        "seed": 1,
        "training_seed": 10,
        "embedding_std": 1.0,
        "threads": 2,
    },
    "toy.__main__:train": {
        "quick": False,
        "reward": "all",
        "training_seed": 10,
        "embedding_std": 1.0,
    },
    "toy.demo:compare": {"baseline": "bon", "pairs": 1},
    "toy.laboratory.experiment:Experiment": {"group": None, "first_seed": 1},
    "toy.laboratory.languages:RewardKind": {
        "layers": 2,
        "embedding_std": 1.0,
        "width": 16,
        "steps": 300,
        "batch": 128,
    },
    "toy.laboratory.languages:Wide": {"V": 4096, "N": 8, "smoothing": 0.0},
    "toy.language:split_prompts": {"seed": 0, "held_out": 96},
    "toy.networks:Size": {"heads": 4},
    "toy.statistics:spearman": {"seed": 0},
    "toy.training:DenoiserRecipe": RECIPE,
    "toy.training:RewardRecipe": {**RECIPE, "embedding_std": 1.0},
}


@pytest.mark.parametrize("of", DEFAULTS)
def test_defaults(of):
    module, name = of.split(":")
    found = operator.attrgetter(name)(importlib.import_module(module))
    if inspect.isclass(found):
        given = {field.name: field.default for field in fields(found)}
    else:
        of_function = inspect.signature(found).parameters.values()
        given = {one.name: one.default for one in of_function if one.default is not one.empty}
    expected = DEFAULTS[of]
    assert {name: value for name, value in given.items() if value is not MISSING} == expected
    for name, value in expected.items():
        assert type(given[name]) is type(value)
