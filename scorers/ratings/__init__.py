"""What people said of images: ratings, and the files that they come in. The benchmark and the training read them."""

from .reading import Rating, pick_stratified, read_ratings

__all__ = ["Rating", "pick_stratified", "read_ratings"]
