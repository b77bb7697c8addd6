"""What this machine can do for sprites: each capability, what it costs to be without, and the fix.

Real tries, in private namespaces: nothing of the machine is changed, and nothing stays. (The kernel
may load a module for a try, as it would for a sprite.)
"""
