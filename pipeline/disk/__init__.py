"""How bytes become durable, and whose folder it is."""
