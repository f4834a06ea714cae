"""Picture files: what the header says, and the pixels, upright and opaque. `models.images` puts the parts together.

One module a format reads sizes, orientation and transparency, finds where the first picture ends, and refuses what is
incomplete. They need the standard library only; `pixels` needs OpenCV.
"""
