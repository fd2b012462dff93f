"""Gather a model's files and upload them to the Hub."""
