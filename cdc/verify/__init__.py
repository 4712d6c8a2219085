"""Proves that a replica holds the source's rows while both keep changing, and can have repaired what differs.

Three passes, each over what the one before could not settle:

1. `digest`: both sides digest the same runs of rows. Equal sums are a proof by themselves, whenever they were taken:
   the replica's run held exactly the rows that the source showed. Unequal ones may be due to changes in between.
2. `hashes`: of the unequal runs, each row's hash. Equal hashes settle their rows in the same way.
3. `keys`: the keys left over are read under a fence. What the source showed, plus what the topics brought up to the
   replica's own checkpoint, says exactly what the replica must hold. Only who fails that twice is reported.

So the common case costs one scan on each side, and the exact case is paid only for rows that differ or move.
README.md, "The fenced read".
"""
