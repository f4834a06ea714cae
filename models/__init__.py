"""Neural networks and measured profiles: loading, preprocessing, prediction. Imports nothing of the scheduler.

`catalogue`, `profile` and `emulation` need no more than numpy; `images` and `preprocess` need OpenCV; `network`
needs torch.
"""
