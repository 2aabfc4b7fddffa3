"""Judges by name that ask a multimodal LLM: one file each."""
