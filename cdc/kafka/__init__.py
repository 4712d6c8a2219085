"""Everything that speaks Kafka: topics written and read, the schema registry, checkpoints in a compacted topic.

``client`` says how to reach a cluster; ``writer`` and ``reader`` are the two hot seams; ``topics`` makes and
describes topics; ``errors`` translates the driver's errors once.
"""
