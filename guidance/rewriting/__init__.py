"""Other wordings of a prompt: who proposes them, and which are kept."""

from .rewrite_prompt import RewritePrompt

__all__ = ["RewritePrompt"]
