"""The mini CLIP: closed-vocabulary tokenizer and shipped weights."""

from zss_d2.clip.mini.tokenizer import ClosedVocabularyTokenizer

__all__ = ["ClosedVocabularyTokenizer"]
