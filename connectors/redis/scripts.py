"""The scripts that run in the server: each decides and writes in one step, so that no two writers meet in between.

A row is written only by whoever holds its partition (the *token* in the partition's state), only by an event behind the
partition's own position, and only over a lower position: that of the row, of its deletion, and of its table's newest
TRUNCATE. So a repeat, a task that was replaced, and a segment of a topic that is read again change nothing.

The token changes with every saved state. A server that came back with an older state than the one it acknowledged
(an RDB file, a replica that was promoted) therefore knows none of the tokens in use: its tasks claim anew, and go on
from the state that is really there.
"""

from __future__ import annotations

POSITION = "cdc.position"
"""The field of a row that holds its position."""

FENCED, REPEATED, APPLIED, MISSING = -1, 0, 1, 2
"""What a row's script answers. MISSING: applied as far as that goes, but the row was not there."""

_GUARDED = """
-- KEYS: row, deletion, partition's state, newest truncate. ARGV: token, position, ...
local state = redis.call('HMGET', KEYS[3], 'token', 'position')
if state[1] ~= ARGV[1] then return -1 end
if state[2] and state[2] >= ARGV[2] then return 0 end
local truncated = redis.call('GET', KEYS[4])
if truncated and truncated >= ARGV[2] then return 0 end
local held = redis.call('HGET', KEYS[1], 'cdc.position')
if held and truncated and held <= truncated then
  redis.call('DEL', KEYS[1])
  held = false
end
if held then
  if held >= ARGV[2] then return 0 end
else
  local deleted = redis.call('GET', KEYS[2])
  if deleted and deleted >= ARGV[2] then return 0 end
end
"""

PUT = (
    _GUARDED
    + """
-- ARGV: ..., field, value, field, value, ...: the whole row
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'cdc.position', ARGV[2], unpack(ARGV, 3))
if held then return 1 end
return 2
"""
)

MERGE = (
    _GUARDED
    + """
-- ARGV: ..., how many arguments are fields with values, these, then fields that became NULL. Never makes a row.
if not held then return 2 end
local last = 3 + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'cdc.position', ARGV[2], unpack(ARGV, 4, last))
if #ARGV > last then redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1)) end
return 1
"""
)

DELETE = (
    _GUARDED
    + """
-- ARGV: ..., milliseconds for which the deletion is remembered
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
if held then return 1 end
return 2
"""
)

TRUNCATE = """
-- KEYS: newest truncate, partition's state. ARGV: token, position
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then return -1 end
local truncated = redis.call('GET', KEYS[1])
if not truncated or truncated < ARGV[2] then redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""

SWEEP = """
-- KEYS: newest truncate, row. The row goes if it stands below the truncate.
local truncated = redis.call('GET', KEYS[1])
local held = redis.call('HGET', KEYS[2], 'cdc.position')
if truncated and held and held <= truncated then redis.call('DEL', KEYS[2]) end
return 1
"""

CLAIM = """
-- KEYS: partition's state, what it withholds, all partitions. ARGV: token, name of the partition
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'token', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
"""

SAVE = """
-- KEYS: partition's state, what it withholds. ARGV: token, how many arguments are the state's fields with values,
-- these (the new token among them), how many are withheld keys with offsets, these, then keys that are settled
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
local last = 2 + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 3, last))
local first = last + 2
last = last + 1 + tonumber(ARGV[last + 1])
for at = first, last, 2 do redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
for at = last + 1, #ARGV do redis.call('HDEL', KEYS[2], ARGV[at]) end
return 1
"""
