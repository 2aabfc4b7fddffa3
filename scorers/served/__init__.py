"""Judges behind an OpenAI-compatible server: how it is asked, and how its log probabilities become scores."""
