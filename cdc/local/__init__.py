"""Throwaway real servers for a trial and for tests: PostgreSQL, Kafka and a schema registry.

``cluster`` is the door: it starts a set of servers in a state directory and hands out their addresses.
A small *keeper* process (``keeper``) is the parent of every server, so that nothing outlives its owner.
``proxy`` stands between a client and a server and breaks the connection in chosen ways.
"""
