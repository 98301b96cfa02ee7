"""Recovery: the topics read again, the index rebuilt, dead letters redriven, groups moved."""
