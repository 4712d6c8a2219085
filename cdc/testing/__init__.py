"""In-memory implementations of the seams, suites that every implementation must pass, and failure points."""
