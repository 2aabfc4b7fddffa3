"""Pipelines: any diffusers text-to-image pipeline, guided; what it made, kept and made again."""

from pathlib import Path

from .bulk import stream
from .cog_guided import CogGuidedPipeline
from .embedded import embedded_path
from .finetuning import FinetuneResult, finetune
from .output import CogGuidedOutput
from .records.record import Record
from .records.replaying import Replay, replay
from .records.sheet import contact_sheet
from .records.streamed import read_candidates, read_record
from .study.study import StudyResult, run_study, tally

CUSTOM_PIPELINE = str(Path(__file__).with_name("custom_pipeline.py"))
"""What to give plain diffusers as `custom_pipeline=`."""

__all__ = [
    "CUSTOM_PIPELINE",
    "CogGuidedOutput",
    "CogGuidedPipeline",
    "FinetuneResult",
    "Record",
    "Replay",
    "StudyResult",
    "contact_sheet",
    "embedded_path",
    "finetune",
    "read_candidates",
    "read_record",
    "replay",
    "run_study",
    "stream",
    "tally",
]
