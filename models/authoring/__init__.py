"""`edgeburst-model`: writes a card from a model's file or from another server's description, and checks a folder.

Frameworks are imported only by the file formats that need them.
"""
