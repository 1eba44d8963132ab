"""Engines that run an artifact, one small file each, and the loop around them.

No torch anywhere: a board runs its models without it.
"""
