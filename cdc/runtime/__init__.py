"""Puts the rooms together: connector files, plug-ins, tasks and the processes that they run in."""
