"""`cogguided serve`."""

