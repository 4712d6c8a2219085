"""The demonstration: a year of flights from New York, replicated, disturbed, verified, repaired.

``deploy/demo`` runs it. ``demo`` tells the story stage by stage; each stage's work is in the file of its name.
"""
