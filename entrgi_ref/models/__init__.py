"""The frozen networks of the paper behind the protocols of the algorithm.

    dream.py        Dream-7B, a mask predictor, as a `Denoiser`
    sequence.py     a sequence-classification reward model, as a `Reward`
    vocabulary.py   from the ids of one tokenizer to those of the other
    checkpoints.py  folders laid out as on the hub, read as data

Only this room and the experiments import transformers, and `import entrgi_ref` imports neither.
"""

from .dream import Dream
from .sequence import SequenceReward
from .vocabulary import VocabularyMap

__all__ = ["Dream", "SequenceReward", "VocabularyMap"]
