"""Work on several processes or machines, by Ray: scoring and generating in bulk. See `docs/ray.md`.

Ray is imported when something here is first used; without it there is one clear error.

>>> from cogguided.integrations.ray import Workers
>>> Workers(count=4, gpus=1)
Workers(address='local', count=4, gpus=1)
"""

from .cluster import Workers
from .generating import RayStream, stream_on_ray
from .scoring import ScoreStream, score_files_on_ray

__all__ = ["RayStream", "ScoreStream", "Workers", "score_files_on_ray", "stream_on_ray"]
