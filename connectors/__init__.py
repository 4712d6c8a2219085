"""The connectors: one folder per system, found by the entry point group ``cdc.connectors``."""
