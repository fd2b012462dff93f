"""Diagnosing and re-learning in any transformers Trainer."""
