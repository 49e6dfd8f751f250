"""Measuring recallfs beside its peers: what `recall bench` does.

The benchmarks themselves lie in ``benchmarks/suite`` of a checkout; here is what runs them, keeps
their figures, shows, exports and compares them.
"""
