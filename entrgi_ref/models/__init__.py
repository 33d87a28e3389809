"""The frozen networks of the paper behind the protocols of the algorithm.

    denoiser.py     a mask predictor as a `Denoiser`
    window.py       its last layer, at the positions that are read
    families.py     what differs between families of them, one declaration each
    causal.py       a causal network as a `Reward`: what the next two share
    sequence.py     a sequence-classification reward model
    likelihood.py   an ordinary causal model: how likely it finds an answer
    combined.py     a weighted sum of several, and which kind a checkpoint is
    reading.py      their network, read from embeddings in two parts
    replayed.py     its work on a GPU, recorded once and replayed
    adapters.py     a LoRA adapter merged into it
    tokenizers.py   the tokenizers of a checkpoint, and its chat template
    vocabulary.py   from the ids of one tokenizer to those of the other
    loading.py      how it is loaded: precision, place, rounded weights, attention
    checkpoints.py  folders laid out as on the hub, read as data
    listed.py       their configuration and sizes, without their weights

Only this room and the experiments import transformers, and `import entrgi_ref` imports neither.
"""

import logging
import warnings

# transformers imports torchao where that is installed, which warns of every kernel that it lacks,
# and whose source, from Python 3.12 on, is warned of where it is compiled anew.
_before = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
        from .combined import SumOfRewards, examine_reward
        from .denoiser import DenoiserCheckpoint, DiffusionLM, Dream, load_denoiser
        from .likelihood import LikelihoodReward
        from .sequence import RewardCheckpoint, SequenceReward
        from .vocabulary import VocabularyMap
finally:
    logging.disable(_before)

__all__ = [
    "DenoiserCheckpoint",
    "DiffusionLM",
    "Dream",
    "LikelihoodReward",
    "RewardCheckpoint",
    "SequenceReward",
    "SumOfRewards",
    "VocabularyMap",
    "examine_reward",
    "load_denoiser",
]
