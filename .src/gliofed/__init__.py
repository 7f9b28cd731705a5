"""Federated training of 3D brain-MRI models across hospitals.

The packages in this folder are links to those at the top of the repository, where they are edited.
"""

__version__ = "0.1.0"
