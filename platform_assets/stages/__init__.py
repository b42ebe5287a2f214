"""Declare the stages of a product: one file per stage, each with one public `build(spec)`.

A declaration names inputs, maker and report; `engine/` plans, computes, writes and reports. Other packages do the
work: `compute/` computes, `makers/` make bytes, `show/` draws, `storage/` stores, `steps/` run heavy work.
"""
