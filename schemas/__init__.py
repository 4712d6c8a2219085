"""Avro schemas of our own topics: packaged, read at run time, the one source of truth."""
