"""The trips of a change: from the log to the topics (capture, backfill), from the topics to a replica (apply)."""
