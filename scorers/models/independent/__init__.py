"""A judge of another kind for the embedded world: no language model, no gradient, ratings its scorer never saw."""
