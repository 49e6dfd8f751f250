"""The asv suite: remote and local reading, slicing and downloads beside their peers, and our own.

Each module is a group; names and parameters are those of NeurodataWithoutBorders' nwb_benchmarks,
so that its database takes the results. `recall bench run` drives it.
"""
