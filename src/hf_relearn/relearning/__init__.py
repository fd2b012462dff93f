"""Diagnose and re-learn in any transformers Trainer."""
