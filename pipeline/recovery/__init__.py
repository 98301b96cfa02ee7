"""Recovery: topics replayed, the index rebuilt, dead letters redriven, groups moved."""
