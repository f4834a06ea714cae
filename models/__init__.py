"""Neural networks and measured profiles: load, preprocess, predict. Imports nothing of the scheduler's.

`catalogue`, `profile` and `emulation` need no more than numpy; `images` and `preprocess` need OpenCV; `network`
needs torch.
"""
